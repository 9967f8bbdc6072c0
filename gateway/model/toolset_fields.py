"""A toolset's specification as somebody sends it: each field read, checked, and named in the error when it is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import orjson

from gateway.errors import InvalidParams
from gateway.model.grants import Grants, Rule, read_rules
from gateway.model.override_fields import Overrides, read_overrides_of_servers
from gateway.model.reference_texts import references_in
from gateway.model.result_policy import read_policy
from gateway.model.tool_modes import MODES
from gateway.model.toolsets import BARE, PREFIXED, ToolsetSpec

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MAX_BYTES = 256 << 10  # of the rules of one toolset
_MAX_PINNED, _MAX_NAME = 100, 512
_READ_ONLY = frozenset(  # what GET shows may be PUT back
    {"state", "problems", "servers", "counts", "created_at", "updated_at", "revision", "url"}
)


def is_slug(value: str) -> bool:
    """Tell whether a toolset can have this slug at all."""
    return _SLUG.fullmatch(value) is not None


def parse_toolset(params: Mapping[str, Any]) -> ToolsetSpec:
    """Read a whole specification. Raises InvalidParams, naming the field."""
    values = read_toolset_fields(params)
    if "slug" not in values:
        raise InvalidParams("The field 'slug' is required.", "slug")
    return ToolsetSpec(**values)


def patch_toolset(stored: ToolsetSpec, params: Mapping[str, Any]) -> ToolsetSpec:
    """Change some fields of a specification; the slug stays. Raises InvalidParams."""
    values = read_toolset_fields(params, stored.rules)
    if values.get("slug", stored.slug) != stored.slug:
        raise InvalidParams("A toolset's slug can't be changed: it is in the addresses that clients have.", "slug")
    return replace(stored, **values)


def read_toolset_fields(params: Mapping[str, Any], rules: Grants | None = None) -> dict[str, Any]:
    """Check the fields that are there, `rules` in place of those that are not. Raises InvalidParams."""
    values: dict[str, Any] = {}
    for name, value in params.items():
        if name in _READ_ONLY:
            continue
        if name in ("include", "exclude"):
            continue
        if name not in _READERS:
            known = ", ".join((*_READERS, "include", "exclude"))
            raise InvalidParams(f"There is no field {name[:64]!r}; a toolset takes {known}.", name[:64])
        values[name] = _READERS[name](value, name)
    if "include" in params or "exclude" in params:
        values["rules"] = _read_rules(params, rules)
    return values


def from_stored(document: Mapping[str, Any]) -> ToolsetSpec:
    """Read what was stored; fields that only a newer version knows are passed over. Raises InvalidParams."""
    known = {each.name for each in fields(ToolsetSpec)} | {"include", "exclude"}
    return parse_toolset({name: value for name, value in document.items() if name in known})


def _read_rules(params: Mapping[str, Any], stored: Grants | None) -> Grants:
    source, read = {} if stored is None else dict(stored.source), {}
    for field_name, kind in (("include", "allow"), ("exclude", "deny")):
        if field_name in params:
            source[kind] = [] if params[field_name] is None else params[field_name]
        read[kind] = _rules(source.get(kind, []), field_name)
    if len(orjson.dumps(source)) > _MAX_BYTES:
        raise InvalidParams(f"'include' and 'exclude' must take at most {_MAX_BYTES} bytes.", "include")
    return Grants(read["allow"], read["deny"], source)


def _rules(value: Any, at: str) -> tuple[Rule, ...]:
    rules = read_rules(value, at)
    for number, rule in enumerate(rules):
        if rule.toolsets is not None:
            raise InvalidParams(f"'{at}[{number}]' has 'toolsets': a toolset holds no other.", f"{at}[{number}]")
    return rules


def _read_overrides(value: Any, at: str) -> Mapping[str, Overrides]:
    read = read_overrides_of_servers(value, at)
    if any(references_in(read)):
        raise InvalidParams(f"'{at}' has a reference to a secret: those stand in the overrides of a server.", at)
    return read


def _read_slug(value: Any, at: str) -> str:
    if not isinstance(value, str) or not is_slug(value):
        raise InvalidParams(
            "A slug has 1 to 63 small letters, digits, '-' or '_', and starts with a letter or digit "
            "(`title` is free text).",
            at,
        )
    return value


def _text(limit: int, *, optional: bool) -> Any:
    def read(value: Any, at: str) -> str | None:
        if value is None:
            return None if optional else ""
        if not isinstance(value, str) or len(value) > limit:
            raise InvalidParams(f"{at!r} must be a string of at most {limit} characters.", at)
        return value

    return read


def _read_flag(value: Any, at: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidParams(f"{at!r} must be true or false.", at)
    return value


def _read_names(value: Any, at: str) -> str:
    if value not in (PREFIXED, BARE):
        raise InvalidParams(f"{at!r} must be '{PREFIXED}' (names as at /mcp) or '{BARE}' (without prefix).", at)
    return str(value)


def _read_mode(value: Any, at: str) -> str | None:
    if value is not None and value not in MODES:
        raise InvalidParams(f"{at!r} must be one of {', '.join(MODES)}, or null for the gateway's.", at)
    return None if value is None else str(value)


def _read_pinned(value: Any, at: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MAX_PINNED:
        raise InvalidParams(f"{at!r} must be a list of at most {_MAX_PINNED} names.", at)
    if not all(isinstance(each, str) and 1 <= len(each) <= _MAX_NAME for each in value):
        raise InvalidParams(f"Each of {at!r} must be a tool's name of 1 to {_MAX_NAME} characters.", at)
    return tuple(dict.fromkeys(value))


_READERS: Mapping[str, Any] = {
    "slug": _read_slug,
    "title": _text(200, optional=True),
    "description": _text(4000, optional=False),
    "instructions": _text(16_000, optional=True),
    "enabled": _read_flag,
    "names": _read_names,
    "overrides": _read_overrides,
    "mode": _read_mode,
    "results": lambda value, at: None if value is None else read_policy(value, at) or None,
    "pinned": _read_pinned,
}
