"""The live lists: servers, tools, resources, prompts, as one document or as a stream that carries changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from hashlib import sha256

from gateway.edge.request import Http, ListAs
from gateway.edge.response import send_bytes, stream
from gateway.methods.servers import listed
from gateway.methods.services import Gateway
from gateway.model.catalogue import Catalogue
from gateway.model.listing import ListQuery
from gateway.model.principals import Principal
from gateway.protocol.messages import dump
from gateway.protocol.sse import KEEP_ALIVE, encode_event
from gateway.tasks import end

_TOGETHER_SECONDS = 0.1


async def serve(gateway: Gateway, http: Http, principal: Principal, kind: str) -> None:
    """One list, as `Accept` wants it: a document, a stream that carries changes, or a stream of one event.

    Raises NotAcceptable or BadQuery.
    """
    how = http.list_as()
    query = ListQuery.from_query_string(http.query, is_stream=how is not ListAs.DOCUMENT)
    if how is ListAs.DOCUMENT:
        body = _document(kind, gateway.sync.catalogue, principal, query)
        await send_bytes(http, 200, body, headers=[(b"cache-control", b"no-cache")])
        return

    async def frames() -> AsyncGenerator[bytes, None]:
        catalogue = gateway.sync.catalogue
        yield _event(kind, catalogue, principal, query)
        while how is ListAs.LIVE and not gateway.draining.is_set():
            if await _next_catalogue(gateway, catalogue) is None:
                yield KEEP_ALIVE
                continue
            await asyncio.sleep(_TOGETHER_SECONDS)  # several changes in a row make one event
            before, catalogue = catalogue, gateway.sync.catalogue
            if _content(kind, before, principal, query) != _content(kind, catalogue, principal, query):
                yield _event(kind, catalogue, principal, query)

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


def _document(kind: str, catalogue: Catalogue, principal: Principal, query: ListQuery) -> bytes:
    """The document of a list; encoded once for all that ask for the same."""
    key = "document", kind, principal.servers, query
    return catalogue.encoded(key, lambda: dump(listed(kind, catalogue, principal, query)))


def _content(kind: str, catalogue: Catalogue, principal: Principal, query: ListQuery) -> bytes:
    """A digest of the same without the registry's revision: whether there is anything new to tell."""
    key = "content", kind, principal.servers, query
    return catalogue.encoded(
        key, lambda: sha256(dump(listed(kind, catalogue, principal, query) | {"revision": 0})).digest()
    )


def _event(kind: str, catalogue: Catalogue, principal: Principal, query: ListQuery) -> bytes:
    key = "event", kind, principal.servers, query
    return catalogue.encoded(
        key,
        lambda: encode_event(_document(kind, catalogue, principal, query), name=kind, id=str(catalogue.revision)),
    )
