"""What the compiler is asked for, what it gives, and what it can't take: all that a worker knows of documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


class BadDocument(Exception):
    """A document that can't be taken; the text says why, and is shown to who sent it."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be made of a document: which operations, for which base URL, and what the operator sends anyway.

    `spec_url` is where the document was found, for a base URL that is relative to it; `headers` have names in lower
    case.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    base_url: str | None = None
    spec_url: str | None = None
    headers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Job:
        lists = {name: tuple(value[name]) for name in ("include", "exclude", "headers")}
        return cls(**{**value, **lists})


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a document gives. `left_out` are `{"operation", "name", "reason"}`, so are those that `include` and
    `exclude` leave out; `security` are the schemes that it names."""

    title: str
    version: str
    format: str
    description: str
    base_url: str
    tools: list[dict[str, Any]] = field(default_factory=list)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    excluded: list[dict[str, Any]] = field(default_factory=list)
    security: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
