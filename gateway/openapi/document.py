"""An OpenAPI document as JSON values: its text read as JSON or YAML, and its references followed within it.

YAML is read as OpenAPI asks for it (3.1.1, 4.3): with JSON's values only, as YAML 1.2 has them, so that `no` is a text
and a date is one too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import orjson
import yaml

from gateway.model.api_document import MAX_BYTES
from gateway.openapi.job import BadDocument

_MAX_DEPTH = 200
_MAX_VALUES = 2_000_000
_MAX_HOPS = 16
_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), "-+0123456789"),
    (
        "float",
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$"),
        "-+0123456789.",
    ),
    ("merge", re.compile(r"^<<$"), "<"),
)


class Unresolved(Exception):
    """A reference that leads nowhere in the document; the text says where it points."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2's core schema, less what JSON has no value for."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # yaml's own way


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, list(_first))


def read_document(data: bytes) -> dict[str, Any]:
    """Read a document's text. Raises BadDocument."""
    if len(data) > MAX_BYTES:
        raise BadDocument(f"The document has {len(data) / (1 << 20):.1f} MiB; at most {MAX_BYTES >> 20} are read.")
    data = data.removeprefix(b"\xef\xbb\xbf").strip()
    value = _json(data) if data[:1] in (b"{", b"[") else _yaml(data)
    if not isinstance(value, dict):
        raise BadDocument("The document is no object; an OpenAPI document begins with `openapi` or `swagger`.")
    return value


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if data[:1] == b"{" and b"\n" in data:
            try:
                return _yaml(data)  # flow style, with comments or without quotes
            except BadDocument:
                pass
        where = f"line {error.lineno}, column {error.colno}"
        raise BadDocument(f"The document is not JSON: {error.msg} ({where}).") from None


def _yaml(data: bytes) -> Any:
    try:
        value = yaml.load(data.decode(), _Loader)  # noqa: S506  # it is a SafeLoader
    except UnicodeDecodeError:
        raise BadDocument("The document is not UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise BadDocument(f"The document is not YAML: {error.problem}{where}.") from None
    except (yaml.YAMLError, RecursionError, ValueError, TypeError):
        raise BadDocument("The document is neither JSON nor YAML.") from None
    return _Plain().value(value, 0)


class _Plain:
    """Makes JSON's values of YAML's: names are texts, and what is shared is counted each time it stands there."""

    def __init__(self) -> None:
        self._count = 0

    def value(self, value: Any, depth: int) -> Any:
        self._count += 1
        if self._count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise BadDocument("The document is nested too deeply, or its aliases make too much of it.")
        if isinstance(value, dict):
            return {_name_of(name): self.value(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list | tuple | set):
            return [self.value(each, depth + 1) for each in value]
        return value if isinstance(value, str | int | float | None) else str(value)


def _name_of(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return key if isinstance(key, str) else str(key)


def target(document: Mapping[str, Any], reference: str) -> Any:
    """What a reference within the document points at (RFC 6901). Raises Unresolved."""
    if not reference.startswith("#"):
        raise Unresolved(f"it refers to another document: {reference[:200]}")
    value: Any = document
    for step in _steps(reference[1:]):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            raise Unresolved(f"it refers to what is not there: {reference[:200]}")
    return value


def _steps(pointer: str) -> Iterator[str]:
    if pointer and not pointer.startswith("/"):
        raise Unresolved(f"it refers to an anchor: #{pointer[:200]}")
    for step in pointer.split("/")[1:]:
        yield unquote(step).replace("~1", "/").replace("~0", "~")


def followed(document: Mapping[str, Any], value: Any) -> Any:
    """The value itself, or what its chain of references ends at. Raises Unresolved."""
    for _ in range(_MAX_HOPS):
        if not isinstance(value, dict) or not isinstance(reference := value.get("$ref"), str):
            return value
        value = target(document, reference)
    raise Unresolved("its references lead in a circle")
