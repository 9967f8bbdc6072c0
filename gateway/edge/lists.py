"""The live lists: servers, tools, resources, prompts, as one document or as a stream that carries changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from gateway.edge.request import Http, ListAs
from gateway.edge.response import send_bytes, stream
from gateway.methods.servers import listed
from gateway.methods.services import Gateway
from gateway.model.catalogue import Catalogue
from gateway.model.cursors import Cursors
from gateway.model.listing import ListQuery
from gateway.model.principals import Principal
from gateway.protocol.messages import dump
from gateway.protocol.sse import KEEP_ALIVE, encode_event
from gateway.tasks import end

_TOGETHER_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class _View:
    """A list as one principal asks for it; each thing is encoded once per catalogue for all that ask for the same."""

    kind: str
    principal: Principal
    query: ListQuery
    cursors: Cursors

    def document(self, catalogue: Catalogue) -> bytes:
        return catalogue.encoded(self._key("document"), lambda: dump(self._listed(catalogue)))

    def content(self, catalogue: Catalogue) -> bytes:
        """A digest of the same without the registry's revision: whether there is anything new to tell."""
        return catalogue.encoded(
            self._key("content"), lambda: sha256(dump(self._listed(catalogue) | {"revision": 0})).digest()
        )

    def event(self, catalogue: Catalogue) -> bytes:
        return catalogue.encoded(
            self._key("event"),
            lambda: encode_event(self.document(catalogue), name=self.kind, id=str(catalogue.revision)),
        )

    def _key(self, what: str) -> Hashable:
        return what, self.kind, self.principal.servers, self.query

    def _listed(self, catalogue: Catalogue) -> dict[str, Any]:
        return listed(self.kind, catalogue, self.principal, self.query, self.cursors)


async def serve(gateway: Gateway, http: Http, principal: Principal, kind: str) -> None:
    """One list, as `Accept` wants it: a document, a stream that carries changes, or a stream of one event.

    Raises NotAcceptable or BadQuery.
    """
    how = http.list_as()
    query = ListQuery.from_query_string(http.query, gateway.cursors, is_stream=how is not ListAs.DOCUMENT)
    view = _View(kind, principal, query, gateway.cursors)
    if how is ListAs.DOCUMENT:
        body = view.document(gateway.sync.catalogue)
        await send_bytes(http, 200, body, headers=[(b"cache-control", b"no-cache")])
        return

    async def frames() -> AsyncGenerator[bytes, None]:
        catalogue = gateway.sync.catalogue
        yield view.event(catalogue)
        while how is ListAs.LIVE and not gateway.draining.is_set():
            if await _next_catalogue(gateway, catalogue) is None:
                yield KEEP_ALIVE
                continue
            await asyncio.sleep(_TOGETHER_SECONDS)  # several changes in a row make one event
            before, catalogue = catalogue, gateway.sync.catalogue
            if view.content(before) != view.content(catalogue):
                yield view.event(catalogue)

    with gateway.admission.stream(principal), gateway.metrics.streams.track_inprogress():
        await stream(http, frames)


async def _next_catalogue(gateway: Gateway, catalogue: Catalogue) -> Catalogue | None:
    """Wait for another catalogue; None when the keep-alive is due or the worker is on its way out."""
    changing = asyncio.create_task(gateway.sync.changed_since(catalogue))
    leaving = asyncio.create_task(gateway.draining.wait())
    try:
        await asyncio.wait(
            {changing, leaving}, timeout=gateway.settings.keepalive_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        return changing.result() if changing.done() else None
    finally:
        await end((changing, leaving))
