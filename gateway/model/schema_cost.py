"""How much work a JSON Schema can make of checking a value: so that a hostile one is not checked at all. Pure.

Two figures: how many schemas there are when every local `$ref` is written out, and how many of them look at one and the
same place of a value (`allOf`, `anyOf`, `$ref` and the like) at most. A `$ref` to a schema that it is part of counts
once: how deep it goes is the value's to say. Source: JSON Schema 2020-12, core, 8.2.3 and 10.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

_IN_PLACE = frozenset(
    {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies", "$ref", "$dynamicRef"}
)
_REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_DATA = frozenset({"const", "enum", "default", "examples", "example"})


class NotCountable(ValueError):
    """A schema with a reference that leads elsewhere or nowhere, or one that is nested too deeply."""


@dataclass(frozen=True, slots=True)
class Cost:
    """`unfolded`: schemas with all references written out; `in_place`: those that look at one place of a value."""

    unfolded: int
    in_place: int


@dataclass(slots=True)
class _Counting:
    root: Any
    known: dict[int, tuple[int, int]] = field(default_factory=dict)
    under_way: set[int] = field(default_factory=set)
    widest: int = 0

    def count(self, schema: Any) -> tuple[int, int]:
        """Schemas below and with this one, and those of them at its own place."""
        if not isinstance(schema, dict | list):
            return 1, 1
        key = id(schema)
        if key in self.under_way:
            return 1, 1
        if key in self.known:
            return self.known[key]
        self.under_way.add(key)
        unfolded, in_place = 1, 1
        pairs = schema.items() if isinstance(schema, dict) else ((None, each) for each in schema)
        for keyword, value in pairs:
            if keyword in _DATA:
                continue
            if keyword in _REFERENCES and isinstance(value, str):
                value = _target(self.root, value)
            elif not isinstance(value, dict | list):
                continue
            below, here = self.count(value)
            unfolded += below
            if keyword is None or keyword in _IN_PLACE:
                in_place += here
        self.under_way.discard(key)
        self.known[key] = unfolded, in_place
        self.widest = max(self.widest, in_place)
        return unfolded, in_place


def cost(schema: Mapping[str, Any]) -> Cost:
    """Count a schema. Raises NotCountable."""
    counting = _Counting(schema)
    try:
        unfolded, _ = counting.count(schema)
    except RecursionError:
        raise NotCountable("it is nested too deeply") from None
    return Cost(unfolded, counting.widest)


def _target(root: Any, reference: str) -> Any:
    """What a reference within the schema leads to."""
    if reference not in ("", "#") and not reference.startswith("#/"):
        raise NotCountable(f"its reference {reference[:60]!r} leads to no place that is named by a path")
    found = root
    for step in reference.removeprefix("#").split("/")[1:]:
        step = unquote(step).replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise NotCountable(f"its reference {reference[:60]!r} leads nowhere") from None
    return found
