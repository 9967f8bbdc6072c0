"""The audit's method: rows by filters, newest first. A user gets those of its own key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from gateway.access.audit import Filter
from gateway.errors import InvalidParams
from gateway.methods.call import Call, Handler
from gateway.model.listing import read_limit
from gateway.model.principals import has_role

_MAX_PAGE = 1000
_TEXTS = ("kind", "principal", "key_id", "server", "tool", "outcome", "request_id")


async def list_audit(call: Call, /, **params: Any) -> Mapping[str, Any]:
    """Show who called and changed what, newest first, a page at a time."""
    known = (*_TEXTS, "since", "until", "limit", "cursor", "_meta")
    for name in params:
        if name not in known:
            listed = ", ".join(known[:-1])
            raise InvalidParams(f"There is no parameter {name[:64]!r}; the audit takes {listed}.", name[:64])
    asked: dict[str, Any] = {name: _text(params.get(name), name) for name in _TEXTS}
    wanted = Filter(**asked, since=_time(params.get("since"), "since"), until=_time(params.get("until"), "until"))
    if wanted.kind not in (None, "call", "change"):
        raise InvalidParams("'kind' must be 'call' or 'change'.", "kind")
    if not has_role(call.principal, "operator"):
        if wanted.key_id not in (None, call.principal.id) or wanted.principal not in (None, call.principal.name):
            return {"rows": [], "next_cursor": None}
        wanted = replace(wanted, key_id=call.principal.id)
    limit = read_limit(params.get("limit", 100), _MAX_PAGE)
    cursors = call.gateway.cursors
    after = _place(cursors.read(params.get("cursor")))
    rows = await call.gateway.audit.page(wanted, after, limit + 1)
    more = len(rows) > limit
    place = rows[limit - 1][0] if more else None
    return {
        "rows": [row for _, row in rows[:limit]],
        "next_cursor": None if place is None else cursors.after(f"audit {place[0].isoformat()} {place[1]}"),
    }


def _text(value: Any, name: str) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) <= 8192 and "\0" not in value):
        raise InvalidParams(f"{name!r} must be a text.", name)
    return value


def _time(value: Any, name: str) -> datetime | None:
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is None:
            raise ValueError
    except (TypeError, ValueError):
        raise InvalidParams(f"{name!r} must be a time with its zone: 2027-01-31T00:00:00Z.", name) from None
    return found


def _place(identity: str | None) -> tuple[datetime, int] | None:
    if identity is None:
        return None
    try:
        what, at, number = identity.split(" ")
        if what != "audit":
            raise ValueError
        return datetime.fromisoformat(at), int(number)
    except ValueError:
        raise InvalidParams("This cursor was not given out here; begin again without one.", "cursor") from None


METHODS: dict[str, Handler] = {"mcp.audit.list": list_audit}
