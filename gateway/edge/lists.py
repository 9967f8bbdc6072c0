"""The live lists: servers, tools, resources, prompts, as one document or as a stream that carries changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from gateway.edge.request import Http, ListAs
from gateway.edge.response import send_bytes, stream, to_bytes
from gateway.methods.servers import listed
from gateway.methods.services import Gateway
from gateway.model.catalogue import Catalogue
from gateway.model.listing import ListQuery
from gateway.model.principals import Principal
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
        document = listed(kind, gateway.sync.catalogue, principal, query)
        await send_bytes(http, 200, to_bytes(document), headers=[(b"cache-control", b"no-cache")])
        return

    async def frames() -> AsyncGenerator[bytes, None]:
        catalogue = gateway.sync.catalogue
        document = listed(kind, catalogue, principal, query)
        yield _event(kind, document)
        while how is ListAs.LIVE and not gateway.draining.is_set():
            if await _next_catalogue(gateway, catalogue) is None:
                yield KEEP_ALIVE
                continue
            await asyncio.sleep(_TOGETHER_SECONDS)  # several changes in a row make one event
            catalogue = gateway.sync.catalogue
            before, document = document, listed(kind, catalogue, principal, query)
            if {**before, "revision": 0} != {**document, "revision": 0}:
                yield _event(kind, document)

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


def _event(kind: str, document: dict[str, object]) -> bytes:
    return encode_event(to_bytes(document), name=kind, id=str(document["revision"]))
