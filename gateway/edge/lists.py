"""The live lists: servers, toolsets, tools, resources, prompts, as one document or as a stream that carries changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from gateway.edge.request import Http, ListAs
from gateway.edge.response import send_bytes, stream
from gateway.errors import ToolsetDisabled, UnknownToolset
from gateway.methods.servers import listed
from gateway.methods.services import Gateway
from gateway.methods.toolsets import listed_toolsets, look_at_toolsets
from gateway.methods.views import view_of
from gateway.model.catalogue import Catalogue
from gateway.model.cursors import Cursors
from gateway.model.listing import ListQuery
from gateway.model.principals import Principal
from gateway.model.view import View
from gateway.protocol.messages import dump
from gateway.protocol.sse import KEEP_ALIVE, encode_event
from gateway.tasks import end

_TOGETHER_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ListShown:
    """A list as somebody asks for it; each thing is encoded once per view for all that ask for the same."""

    kind: str
    query: ListQuery
    cursors: Cursors

    def document(self, view: View) -> bytes:
        return view.encoded(self._key("document"), lambda: dump(self._listed(view)))

    def content(self, view: View) -> bytes:
        """A digest of the same without the registry's revision: whether there is anything new to tell."""
        return view.encoded(self._key("content"), lambda: sha256(dump(self._listed(view) | {"revision": 0})).digest())

    def event(self, view: View) -> bytes:
        return view.encoded(
            self._key("event"),
            lambda: encode_event(self.document(view), name=self.kind, id=str(view.catalogue.revision)),
        )

    def _key(self, what: str) -> Hashable:
        return what, self.kind, self.query

    def _listed(self, view: View) -> dict[str, Any]:
        if self.kind == "toolsets":
            return listed_toolsets(view, self.query, self.cursors)
        return listed(self.kind, view, self.query, self.cursors)


async def serve(gateway: Gateway, http: Http, principal: Principal, toolset: str | None = None, *, kind: str) -> None:
    """One list, as `Accept` wants it: a document, a stream that carries changes, or a stream of one event.

    Raises NotAcceptable or BadQuery.
    """
    view = await view_of(gateway, principal, toolset)
    how = http.list_as()
    if kind == "toolsets":
        await look_at_toolsets(view)
    query = ListQuery.from_query_string(http.query, gateway.cursors, is_stream=how is not ListAs.DOCUMENT)
    shown = ListShown(kind, query, gateway.cursors)
    if how is ListAs.DOCUMENT:
        body = shown.document(view)
        await send_bytes(http, 200, body, headers=[(b"cache-control", b"no-cache")])
        return

    async def frames() -> AsyncGenerator[bytes, None]:
        who = gateway.authenticator.current(principal) or principal
        catalogue = gateway.sync.catalogue
        view = catalogue.view(who.grants, toolset)
        yield shown.event(view)
        while how is ListAs.LIVE and not gateway.draining.is_set():
            if not await _change(gateway, catalogue, who):
                yield KEEP_ALIVE
                continue
            await asyncio.sleep(_TOGETHER_SECONDS)  # several changes in a row make one event
            before, catalogue = view, gateway.sync.catalogue
            who = gateway.authenticator.current(who) or who  # a key that is no longer taken ends the stream
            try:
                view = catalogue.view(who.grants, toolset)
            except (UnknownToolset, ToolsetDisabled):
                return
            if kind == "toolsets":
                await look_at_toolsets(view)
            if shown.content(before) != shown.content(view):
                yield shown.event(view)

    with gateway.admission.stream(principal), gateway.metrics.streams.track_inprogress():
        await stream(http, frames)


async def _change(gateway: Gateway, catalogue: Catalogue, who: Principal) -> bool:
    """Wait for another catalogue or other grants; False when the keep-alive is due or the worker is on its way out."""
    changing = asyncio.create_task(gateway.sync.changed_since(catalogue))
    leaving = asyncio.create_task(gateway.draining.wait())
    waiting: set[asyncio.Task[Any]] = {changing, leaving}
    if who.grants is not None:
        waiting.add(asyncio.create_task(gateway.authenticator.changed_since(who)))
    try:
        seconds = gateway.settings.keepalive_seconds
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return any(task.done() for task in waiting if task is not leaving)
    finally:
        await end(waiting)
