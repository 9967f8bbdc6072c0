"""Overrides as somebody sends them: each field read, checked, and named in the error when it is wrong. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.errors import InvalidParams
from gateway.model.grants import SAFE
from gateway.model.reference_texts import references_in
from gateway.model.result_policy import read_policy

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_MAX_BYTES = 512 << 10
_MAX_TOOLS = 2_000
_MAX_ARGUMENTS = 256
_MAX_TTL = 86_400  # seconds
_MAX_KEY = 256  # characters of a tool's or an argument's own name

Overrides = Mapping[str, Mapping[str, Any]]
"""By the tool's own name."""


def read_overrides(value: Any, at: str = "overrides") -> dict[str, dict[str, Any]]:
    """The overrides of one server's tools. Raises InvalidParams, which names the place."""
    if value is None:
        return {}
    found = _object(value, at, _MAX_TOOLS)
    if len(orjson.dumps(value)) > _MAX_BYTES:
        raise InvalidParams(f"'{at}' must take at most {_MAX_BYTES >> 10} KiB.", at)
    read = {tool: _tool(override, f"{at}.{tool}") for tool, override in found.items()}
    _check_names(read, at)
    return read


def read_overrides_of_servers(value: Any, at: str = "overrides") -> dict[str, dict[str, dict[str, Any]]]:
    """The same for several servers, by name, as toolsets have them. Raises InvalidParams."""
    if value is None:
        return {}
    read = {name: read_overrides(each, f"{at}.{name}") for name, each in _object(value, at, _MAX_TOOLS).items()}
    if len(orjson.dumps(value)) > _MAX_BYTES:
        raise InvalidParams(f"'{at}' must take at most {_MAX_BYTES >> 10} KiB.", at)
    _check_names({f"{server}.{tool}": each for server, tools in read.items() for tool, each in tools.items()}, at)
    return read


def for_another_upstream(overrides: Overrides) -> dict[str, dict[str, Any]]:
    """The same for another upstream: secrets that fixed values refer to are not carried over, nor trust in hints."""

    def kept(argument: Mapping[str, Any]) -> dict[str, Any]:
        is_secret = any(references_in(argument.get("value")))
        return {name: each for name, each in argument.items() if not (is_secret and name == "value")}

    return {
        tool: {
            name: {argument: kept(each) for argument, each in value.items()} if name == "arguments" else value
            for name, value in override.items()
            if name != "trust"
        }
        for tool, override in overrides.items()
    }


def _check_names(overrides: Mapping[str, Mapping[str, Any]], at: str) -> None:
    """Refuse one name for two tools."""
    taken: dict[str, str] = {}
    for tool, override in overrides.items():
        name = override.get("name")
        if name is not None and taken.setdefault(name, tool) != tool:
            raise InvalidParams(f"{taken[name]!r} and {tool!r} would both be named {name!r}.", f"{at}.{tool}.name")


def _tool(value: Any, at: str) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for name, each in _object(value, at, len(_TOOL)).items():
        if name not in _TOOL:
            known = ", ".join(_TOOL)
            raise InvalidParams(f"There is no field {name[:64]!r} in an override; it takes {known}.", f"{at}.{name}")
        if each is not None:
            read[name] = _TOOL[name](each, f"{at}.{name}")
    return read


def _argument(value: Any, at: str) -> dict[str, Any]:
    found = _object(value, at, len(_ARGUMENT) + 2)
    read: dict[str, Any] = {}
    for name, each in found.items():
        if name in ("default", "value"):
            read[name] = each
        elif name not in _ARGUMENT:
            known = ", ".join((*_ARGUMENT, "default", "value"))
            raise InvalidParams(f"There is no field {name[:64]!r} for an argument; it takes {known}.", f"{at}.{name}")
        elif each is not None:
            read[name] = _ARGUMENT[name](each, f"{at}.{name}")
    if "value" in read and "default" in read:
        raise InvalidParams(f"'{at}' has a 'value', which is always sent, and a 'default' beside it.", f"{at}.default")
    if read.get("hide") and (extra := sorted(read.keys() & {"name", "required", "description"})):
        raise InvalidParams(f"'{at}' is hidden, so {extra[0]!r} says nothing.", f"{at}.{extra[0]}")
    if "value" in read and any(references_in(read["value"])) and not read.get("hide"):
        raise InvalidParams(f"'{at}' has a reference to a secret as its value: hide it.", f"{at}.hide")
    return read


def _object(value: Any, at: str, most: int) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidParams(f"'{at}' must be an object.", at)
    if len(value) > most:
        raise InvalidParams(f"'{at}' must have at most {most} members.", at)
    for name in value:
        if not 1 <= len(name) <= _MAX_KEY:
            raise InvalidParams(f"'{at}' has a name that is empty, or longer than {_MAX_KEY} characters.", at)
    return value


def _name(value: Any, at: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidParams(f"'{at}' must have 1 to 128 letters, digits, '_', '-' or '.'.", at)
    return value


def _text(most: int) -> Any:
    def read(value: Any, at: str) -> str:
        if not isinstance(value, str) or len(value) > most:
            raise InvalidParams(f"'{at}' must be a text of at most {most} characters.", at)
        return value

    return read


def _flag(value: Any, at: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidParams(f"'{at}' must be true or false.", at)
    return value


def _hints(value: Any, at: str) -> dict[str, bool]:
    for name, each in _object(value, at, len(SAFE)).items():
        if name not in SAFE or not isinstance(each, bool):
            raise InvalidParams(f"'{at}' takes {', '.join(SAFE)}, each true or false.", f"{at}.{name}")
    return dict(value)


def _cache(value: Any, at: str) -> dict[str, Any]:
    found = _object(value, at, 2)
    ttl, per = found.get("ttl"), found.get("per", "caller")
    for name in found:
        if name not in ("ttl", "per"):
            raise InvalidParams(f"There is no field {name[:64]!r} for a cache; it takes ttl, per.", f"{at}.{name}")
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= _MAX_TTL:
        raise InvalidParams(f"'{at}.ttl' must be a number of seconds, at most {_MAX_TTL}.", f"{at}.ttl")
    if per not in ("caller", "all"):
        raise InvalidParams(f"'{at}.per' must be 'caller' or 'all'.", f"{at}.per")
    return {"ttl": ttl, "per": per}


def _arguments(value: Any, at: str) -> dict[str, Any]:
    return {name: _argument(each, f"{at}.{name}") for name, each in _object(value, at, _MAX_ARGUMENTS).items()}


_TOOL: Mapping[str, Any] = {
    "name": _name,
    "title": _text(200),
    "description": _text(16_000),
    "enabled": _flag,
    "annotations": _hints,
    "trust": _flag,
    "arguments": _arguments,
    "results": read_policy,
    "cache": _cache,
}
_ARGUMENT: Mapping[str, Any] = {
    "name": _name,
    "description": _text(4_000),
    "hide": _flag,
    "required": _flag,
}
