"""How a tool's request is made: where each argument goes. Kept as JSON beside the tool's definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"


class Kind(StrEnum):
    """How a body is written."""

    JSON = "json"
    FORM = "form"
    MULTIPART = "multipart"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an argument goes: `place` is `path`, `query` or `header`; `style` and `explode` as OpenAPI has them.

    With `as_json` the value is written as JSON (a parameter with `content`); `reserved` are left as they are.
    """

    place: str
    name: str
    style: str = "simple"
    explode: bool = False
    as_json: bool = False
    reserved: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """The request's body: either the whole of one argument, or an object of several, by argument its field's name.

    `kind` is one of `Kind`, `media` what is sent as Content-Type.
    """

    kind: str
    media: str
    argument: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    styles: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    """Of a form's fields: `style` and `explode`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One operation. `path` is its template; `output` says what `structuredContent` is: the `object` that the API
    answers, that in a member `result`, or none (None)."""

    method: str
    path: str
    places: Mapping[str, Place]
    body: Body | None
    required: tuple[str, ...]
    accept: str
    output: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """Read what `to_json` gave, also as JSON keeps it."""
        body = value["body"]
        return cls(
            method=value["method"],
            path=value["path"],
            places={name: Place(**each) for name, each in value["places"].items()},
            body=None
            if body is None
            else Body(**{**body, "styles": {name: (each[0], each[1]) for name, each in body["styles"].items()}}),
            required=tuple(value["required"]),
            accept=value["accept"],
            output=value["output"],
        )
