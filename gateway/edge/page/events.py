"""The stream that feeds a tab of the page: what there is to see, as the caller may see it, and then what changes.

Events: `hello` (who you are, which gateway), `servers` (the list), `changed` (which lists are others now), `calls`
(those that ended since, newest first), and for operators `figures` (slots of the last hour) and `workers`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from gateway import version
from gateway.edge.lists import ListShown
from gateway.edge.page.sign_in import page_principal
from gateway.edge.request import Http
from gateway.edge.response import stream
from gateway.errors import GatewayError
from gateway.methods.call import Call
from gateway.methods.keys import whoami
from gateway.methods.services import Gateway
from gateway.methods.toolsets import look_at_toolsets
from gateway.model.listing import ListQuery
from gateway.model.principals import Principal, has_role
from gateway.model.view import View
from gateway.protocol.messages import Request, dump
from gateway.protocol.sse import KEEP_ALIVE, encode_event
from gateway.stores.figures import SLOT_SECONDS, SLOTS
from gateway.stores.redis import RedisUnavailable
from gateway.tasks import end

_TICK_SECONDS = 1.0
_FIGURES_SECONDS = 5.0
_KINDS = ("servers", "tools", "resources", "prompts", "toolsets")


async def serve(gateway: Gateway, http: Http, principal: Principal) -> None:
    """The stream of one tab."""
    with gateway.admission.stream(principal), gateway.metrics.streams.track_inprogress():
        await stream(http, lambda: _frames(gateway, http, principal))


async def _frames(gateway: Gateway, http: Http, principal: Principal) -> AsyncGenerator[bytes, None]:
    who = gateway.authenticator.current(principal) or principal
    shown = {kind: ListShown(kind, ListQuery(), gateway.cursors) for kind in _KINDS}
    catalogue = gateway.sync.catalogue
    view = catalogue.view(who.grants)
    yield _event("hello", await _hello(gateway, http, who, view))
    yield shown["servers"].event(view)
    feed = _Feed(gateway, who)
    by_session = await _is_signed_in(gateway, http)
    while not gateway.draining.is_set():
        told = False
        for name, value in await feed.news():
            told = True
            yield _event(name, value)
        if not told:
            yield KEEP_ALIVE
        await _wait(gateway, catalogue)
        now = gateway.authenticator.current(who)
        if now is None:  # what cuts the request may be lost while the database is asked (`tasks`)
            return
        if by_session and not await _is_signed_in(gateway, http):
            return
        if now is not who:
            yield _event("hello", await _hello(gateway, http, now, gateway.sync.catalogue.view(now.grants)))
        if gateway.sync.catalogue is not catalogue or now is not who:
            before, catalogue, who = view, gateway.sync.catalogue, now
            view = catalogue.view(who.grants)
            await look_at_toolsets(view)
            feed.who = who
            changed = [kind for kind, each in shown.items() if each.content(before) != each.content(view)]
            if "servers" in changed:
                yield shown["servers"].event(view)
            if changed:
                yield _event("changed", {"kinds": changed, "revision": catalogue.revision})


async def _is_signed_in(gateway: Gateway, http: Http) -> bool:
    try:
        return await page_principal(gateway, http) is not None
    except GatewayError:
        return False


async def _wait(gateway: Gateway, catalogue: Any) -> None:
    """Until the next tick, or until there is another catalogue."""
    changing = asyncio.create_task(gateway.sync.changed_since(catalogue))
    try:
        await asyncio.wait({changing}, timeout=_TICK_SECONDS)
    finally:
        await end([changing])


async def _hello(gateway: Gateway, http: Http, who: Principal, view: View) -> dict[str, Any]:
    me = await whoami(Call(gateway, who, view, Request("page", "mcp.whoami", {})))
    settings = gateway.settings
    return {
        "me": me,
        "is_operator": has_role(who, "operator"),
        "is_admin": has_role(who, "admin"),
        "url": http.base_url(settings.public_url),
        "version": version.VERSION,
        "revision": view.catalogue.revision,
        "replica": settings.replica_name,
        "separator": settings.separator,
        "allow_stdio": settings.allow_stdio,
        "slot_seconds": SLOT_SECONDS,
        "slots": SLOTS,
        "has_calls": gateway.audit.has_calls,
    }


class _Feed:
    """What one tab has not heard yet of calls, figures and workers."""

    def __init__(self, gateway: Gateway, who: Principal) -> None:
        self.who = who
        self._gateway = gateway
        self._numbers: set[int] = set()
        """The calls that were told, of those that may come again."""
        self._slot = 0
        self._due = 0.0

    async def news(self) -> list[tuple[str, Any]]:
        """What is new, by event."""
        found: list[tuple[str, Any]] = []
        if calls := await self._calls():
            found.append(("calls", {"rows": calls}))
        if has_role(self.who, "operator") and time.monotonic() >= self._due:
            self._due = time.monotonic() + _FIGURES_SECONDS
            found += await self._figures()
        return found

    async def _calls(self) -> list[dict[str, Any]]:
        """Calls that were written since, of all replicas; a user's key hears of its own."""
        gateway = self._gateway
        if not gateway.audit.has_calls:
            return []
        rows = await gateway.latest_calls.of(None if has_role(self.who, "operator") else self.who.id)
        fresh = [row for number, row in rows if number not in self._numbers]
        if rows:
            self._numbers = {number for number, _ in rows}
        return fresh

    async def _figures(self) -> list[tuple[str, Any]]:
        figures, now = self._gateway.figures, int(time.time()) // SLOT_SECONDS
        try:
            slots = await figures.read(self._slot, now)
            workers = await figures.workers()
        except RedisUnavailable:
            return []
        self._slot = now - 1  # the one before may have got more, too
        sessions: int | None
        try:
            sessions = await self._gateway.sessions.count()
        except RedisUnavailable:
            sessions = None
        return [
            ("figures", {"now": now, "slots": [{"number": number, "servers": slot} for number, slot in slots]}),
            ("workers", {"workers": workers, "sessions": sessions}),
        ]


def _event(name: str, value: Any) -> bytes:
    return encode_event(dump(value), name=name)
