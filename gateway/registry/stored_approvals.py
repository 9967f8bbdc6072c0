"""What was approved of servers' tools, as Postgres keeps it: read, brought up to date after a look, told to the audit.

What follows from it is decided in `model/tool_lock`. Who may write: whoever records a server's offers, under its claim,
and whoever approves; both hold the server's row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.model.definitions import digest
from gateway.model.server import Offers
from gateway.model.tool_lock import Approved, first_approved, seen

_AUDITED = 100  # tools that are named in one row of the audit

Row = Mapping[str, Any]


def read_approved(row: Row) -> Approved:
    """What was approved, as a server's row has it."""
    tools = None if row["approved"] is None else first_approved(orjson.loads(row["approved"]))
    return Approved(tools, orjson.loads(row["hints"] or b"{}"))


def columns(approved: Approved) -> tuple[bytes | None, bytes]:
    """The values of the columns `approved` and `hints`."""
    tools = None if approved.tools is None else orjson.dumps(list(approved.tools.values()))
    return tools, orjson.dumps(dict(approved.hints))


def after_look(lock: str | None, row: Row, offers: Offers) -> Approved:
    """What is approved after a look at the server; a lock that has nothing yet takes what is offered."""
    tools = read_approved(row).tools
    if lock is not None and tools is None:
        tools = first_approved(offers.tools)
    return Approved(tools, seen(_hints(row), offers.tools))


def after_change(lock: str | None, row: Row, *, is_another: bool) -> Approved:
    """What is approved once a lock is set or taken away: what is offered then, if anything is known of that.

    Of `is_another` server, which the row's offers are not of, nothing is known yet.
    """
    tools = None
    if lock is not None and row["offers"] is not None and not is_another:
        tools = first_approved(Offers.from_bytes(row["offers"]).tools)
    return Approved(tools, _hints(row))


def _hints(row: Row) -> Mapping[str, int]:
    """The hints that are remembered; of a row of a time when none were, those that stand in it."""
    if row["hints"] is None and row["offers"] is not None:
        return seen({}, Offers.from_bytes(row["offers"]).tools)
    return read_approved(row).hints


def for_audit(before: Approved, after: Approved) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the audit keeps of two states: the definitions' digests and the hints of the tools where they differ."""
    changed: set[str] = set()
    for old, new in ((before.tools or {}, after.tools or {}), (before.hints, after.hints)):
        changed |= {name for name in {*old, *new} if orjson.dumps(old.get(name)) != orjson.dumps(new.get(name))}

    def shown(approved: Approved) -> dict[str, Any]:
        tools = approved.tools or {}
        listed = {
            name: {"digest": digest(tools[name]) if name in tools else None, "hints": approved.hints.get(name)}
            for name in sorted(changed)[:_AUDITED]
        }
        return {"count": len(changed), "tools": listed}

    return shown(before), shown(after)
