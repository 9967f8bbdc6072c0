"""The tool lock: which definitions of a server's tools are served and called, and which hints are believed. Pure.

A server with a lock has approved definitions: at first what it offered when the lock was set, then what is approved.
What it offers is judged against them, tool by tool:

    same      listed and called
    changed   warn: the new definition is served. enforce: the approved one is listed, and calls are refused
    new       warn: served. enforce: neither listed nor called
    gone      not listed; approved it stays, so that it is served again when it comes back as it was

Hints (`readOnlyHint` and so on) are watched with or without a lock: what a tool said when it was first seen is
believed, and so is what became less safe since. A hint that became safer is not believed until it is approved.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.model.definitions import is_same
from gateway.model.grants import SAFE, believed

LOCKS = ("warn", "enforce")
_MAX_KNOWN = 20_000  # tools of one server whose hints are remembered, also of those that are gone

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Approved:
    """What was approved of one server."""

    tools: Mapping[str, Item] | None = None
    """The definitions by name, under a lock; None without one, or while nothing was seen of the server."""
    hints: Mapping[str, int] = field(default_factory=dict)
    """The safe hints that may be believed at most, one bit each, by the tool's name."""


NOTHING_APPROVED = Approved()


@dataclass(frozen=True, slots=True)
class Judged:
    """What comes of what a server offers and what was approved."""

    tools: tuple[Item, ...]
    """What is listed, in the server's order."""
    held: frozenset[str] = frozenset()
    """The tools of the list that are not called."""
    changes: Mapping[str, str] = field(default_factory=dict)
    """Tools that are not as approved: `changed`, `new` or `gone`, by name."""
    doubted: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    """All hints of tools that claim more than is believed, as they are believed."""


def judge(lock: str | None, offered: tuple[Item, ...], approved: Approved) -> Judged:
    """Tell what is served of a server's tools."""
    if lock is None:
        return Judged(offered, doubted=_doubted(offered, approved.hints))
    known = approved.tools or {}
    listed: dict[str, Item] = {}  # with the approved definition, whatever else a tool says of itself
    changes: dict[str, str] = {}
    for tool in offered:
        name = tool["name"]
        if name in listed or name in changes:  # a name that is listed twice is its first tool's
            continue
        if name not in known:
            changes[name] = "new"
            continue
        listed[name] = known[name]
        if not is_same(tool, known[name]):
            changes[name] = "changed"
        elif tool == known[name]:
            listed[name] = tool  # one object less to keep
    names = {tool["name"] for tool in offered}
    changes |= {name: "gone" for name in known if name not in names}
    if lock == "warn":
        return Judged(offered, changes=changes, doubted=_doubted(offered, approved.hints))
    held = frozenset(name for name, what in changes.items() if what == "changed")
    tools = tuple(listed.values())
    return Judged(tools, held, changes, _doubted(tools, approved.hints))


def first_approved(offered: Iterable[Item]) -> dict[str, Item]:
    """What a lock takes as approved when it is set: what is offered then."""
    found: dict[str, Item] = {}
    for tool in offered:
        found.setdefault(tool["name"], tool)
    return found


def seen(hints: Mapping[str, int], offered: Iterable[Item]) -> dict[str, int]:
    """The hints to remember after a look at a server: those of new tools as they are, of others only what both say.

    Nothing is forgotten to make room: a server could bring that about. A tool that finds no room is not believed.
    """
    found = dict(hints)
    for tool in offered:
        name, claims = tool["name"], _claims(tool)
        if name in found or len(found) < _MAX_KNOWN:
            found[name] = found.get(name, claims) & claims
    return found


def approve(lock: str | None, offered: Iterable[Item], approved: Approved, names: Collection[str]) -> Approved:
    """What is approved once these tools are, as they are offered now; one that is gone is forgotten."""
    current = first_approved(offered)
    hints = dict(approved.hints) | {name: _claims(current[name]) for name in names if name in current}
    if lock is None:
        return replace(approved, hints=hints)
    kept = {name: tool for name, tool in (approved.tools or {}).items() if name not in names}
    return Approved(kept | {name: current[name] for name in names if name in current}, hints)


def _claims(tool: Item) -> int:
    """The safe hints that a tool claims, one bit each."""
    if not isinstance(tool.get("annotations"), Mapping):
        return 0
    hints = believed(tool)
    return sum(1 << bit for bit, (hint, safe) in enumerate(SAFE.items()) if hints[hint] is safe)


def _doubted(tools: Iterable[Item], hints: Mapping[str, int]) -> dict[str, dict[str, bool]]:
    """All hints, as they are believed, of the tools that claim more."""
    is_full = len(hints) >= _MAX_KNOWN
    doubted: dict[str, dict[str, bool]] = {}
    for tool in tools:
        claims = _claims(tool)
        trusted = hints.get(tool["name"], 0 if is_full else claims) & claims
        if trusted != claims:
            doubted[tool["name"]] = {
                hint: safe if trusted >> bit & 1 else not safe for bit, (hint, safe) in enumerate(SAFE.items())
            }
    return doubted
