"""A tool's definition: what a model and a person are told of it, compared, digested and shown.

A definition is a tool's name with its title, description, schemas and annotations. What else stands in a tool (`icons`,
`_meta`) is no part of it. Digests are SHA-256 of canonical JSON (RFC 8785), so that they are the same however a server
writes its JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from hashlib import sha256
from typing import Any

import orjson
import rfc8785

from gateway.model.hidden_text import visible

PARTS = ("title", "description", "inputSchema", "outputSchema", "annotations")
"""The parts of a definition beside the name."""
_EXACT = 2**53  # whole numbers up to here are the same in every JSON reader (RFC 8785, 3.2.2.3)
_MAX_DIFF_LINES = 2_000  # of each side: comparing takes a time that grows with their product
_SHOWN_LINES = 1_000  # of each side of a longer one

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Diff:
    """Lines that begin with `-`, `+`, a blank or `@@`."""

    lines: list[str]
    is_whole: bool
    """Whether all that differs stands in it."""


def definition(tool: Item) -> dict[str, Any]:
    """What of a tool is compared; a part that is null is as good as none."""
    return {"name": tool["name"], **{part: tool[part] for part in PARTS if tool.get(part) is not None}}


def is_same(one: Item, other: Item) -> bool:
    """Tell whether two tools have one definition."""
    here, there = definition(one), definition(other)
    if here != there:
        return False
    return orjson.dumps(here) == orjson.dumps(there) or _is_equal(here, there)


def _is_equal(one: Any, other: Any) -> bool:
    """Tell whether values that are equal for Python are so in JSON, where `true` is not 1."""
    if isinstance(one, dict):
        return all(_is_equal(each, other[name]) for name, each in one.items())
    if isinstance(one, list | tuple):
        return all(map(_is_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool)


def parts_that_differ(before: Item, after: Item) -> list[str]:
    """The parts of two definitions that are not the same."""
    return [part for part in PARTS if not is_same(_only(before, part), _only(after, part))]


def digests(tool: Item) -> dict[str, str]:
    """The digest of each part that a tool has: `{"description": "sha256:…", …}`."""
    return {part: _digest(value) for part, value in definition(tool).items() if part != "name"}


def digest(tool: Item) -> str:
    """One digest of the whole definition."""
    return _digest(definition(tool))


def diff(before: Item | None, after: Item | None) -> Diff:
    """The lines in which two definitions differ, for people; hidden characters are spelled out."""
    old, new = (list(_lines(each)) for each in (before, after))
    if max(len(old), len(new)) > _MAX_DIFF_LINES:
        return _long_diff(old, new)
    found = list(unified_diff(old, new, "approved", "offered", lineterm=""))[2:]
    if not found and before is not None and after is not None and not is_same(before, after):
        return Diff(["(they differ in how characters are written: see before and after)"], is_whole=False)
    return Diff(found, is_whole=True)


def _long_diff(old: list[str], new: list[str]) -> Diff:
    """The same for long ones: all between the first and the last line that differ, cut where it is much."""
    start, most = 0, min(len(old), len(new))
    while start < most and old[start] == new[start]:
        start += 1
    tail = 0
    while tail < most - start and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    found, is_whole = [f"@@ line {start + 1} @@"], True
    for sign, lines in (("-", old), ("+", new)):
        changed = lines[start : len(lines) - tail]
        found += [f"{sign}{line}" for line in changed[:_SHOWN_LINES]]
        if len(changed) > _SHOWN_LINES:
            found.append(f"{sign}(and {len(changed) - _SHOWN_LINES} more lines)")
            is_whole = False
    return Diff(found, is_whole)


def _only(tool: Item, part: str) -> dict[str, Any]:
    return {"name": "", part: tool.get(part)}


def _digest(value: Any) -> str:
    return f"sha256:{sha256(_canonical(value)).hexdigest()}"


def _canonical(value: Any) -> bytes:
    return rfc8785.dumps(_exact(value))


def _exact(value: Any) -> Any:
    """The same value, large whole numbers as the doubles that they are in JSON (RFC 8785, 3.1)."""
    if isinstance(value, dict):
        return {name: _exact(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _EXACT:
        return float(value)
    return value


def _lines(tool: Item | None) -> Iterator[str]:
    """A definition as text: a line for each line of a description, and for each value in a schema."""
    if tool is None:
        return
    for part, value in definition(tool).items():
        if isinstance(value, str):
            first, *rest = value.split("\n")
            yield f"{part}: {visible(first)}"
            yield from (f"  {visible(line)}" for line in rest)
        else:
            shown = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).split("\n")
            yield f"{part}: {visible(shown[0])}"
            yield from (f"  {visible(line)}" for line in shown[1:])
