"""A tool's definition: what a model and a person are told of it, compared, digested and shown.

A definition is a tool's name with its title, description, schemas and annotations. What else stands in a tool (`icons`,
`_meta`) is no part of it. Digests are SHA-256 of canonical JSON (RFC 8785), so that they are the same however a server
writes its JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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

Item = Mapping[str, Any]


def definition(tool: Item) -> dict[str, Any]:
    """What of a tool is compared; a part that is null is as good as none."""
    return {"name": tool["name"], **{part: tool[part] for part in PARTS if tool.get(part) is not None}}


def is_same(one: Item, other: Item) -> bool:
    """Tell whether two tools have one definition."""
    here, there = definition(one), definition(other)
    return orjson.dumps(here) == orjson.dumps(there) or _canonical(here) == _canonical(there)


def parts_that_differ(before: Item, after: Item) -> list[str]:
    """The parts of two definitions that are not the same."""
    return [part for part in PARTS if not is_same(_only(before, part), _only(after, part))]


def digests(tool: Item) -> dict[str, str]:
    """The digest of each part that a tool has: `{"description": "sha256:…", …}`."""
    return {part: _digest(value) for part, value in definition(tool).items() if part != "name"}


def digest(tool: Item) -> str:
    """One digest of the whole definition."""
    return _digest(definition(tool))


def diff(before: Item | None, after: Item | None) -> str:
    """The lines in which two definitions differ, for people; hidden characters are spelled out."""
    old, new = (list(_lines(each)) for each in (before, after))
    if max(len(old), len(new)) > _MAX_DIFF_LINES:
        return f"{len(old)} and {len(new)} lines: too long to be compared; see before and after"
    return "\n".join(unified_diff(old, new, "approved", "offered", lineterm=""))


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
            first, *rest = value.splitlines() or [""]
            yield f"{part}: {visible(first)}"
            yield from (f"  {visible(line)}" for line in rest)
        else:
            shown = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).split("\n")
            yield f"{part}: {visible(shown[0])}"
            yield from (f"  {visible(line)}" for line in shown[1:])
