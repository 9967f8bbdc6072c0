"""GET at an MCP address: the client's own stream, and streams that were cut and are taken up again.

Source: MCP 2025-11-25, basic, transports, own_stream for messages and resumability.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.edge.request import Http
from gateway.edge.response import RETRY_MS, stream
from gateway.errors import EventUnknown, NotReady
from gateway.methods.services import Gateway
from gateway.model.principals import Principal
from gateway.protocol import versions
from gateway.protocol.messages import Failure, encode
from gateway.protocol.sse import KEEP_ALIVE, encode_event
from gateway.sessions.get_stream import GetStream
from gateway.sessions.session import Session
from gateway.stores.event_log import StoredStream
from gateway.stores.redis import RedisUnavailable
from gateway.tasks import end

_SECOND_SECONDS = 0.2
_SETTLE_SECONDS = 1.0


async def serve(gateway: Gateway, http: Http, principal: Principal, session: Session) -> None:
    """Open the client's own stream, or resume the one that Last-Event-ID is of."""
    last = http.headers.get(b"last-event-id")
    found = await _find(gateway, session, last) if last else None
    http.forget_headers()

    def frames() -> AsyncGenerator[bytes, None]:
        if found is not None and not found.own:
            return _resumed(gateway, session, found)
        return _own(gateway, principal, session, found)

    with gateway.admission.stream(principal), gateway.metrics.streams.track_inprogress():
        await stream(http, frames)


async def _find(gateway: Gateway, session: Session, last: str) -> StoredStream:
    try:
        return await gateway.event_log.find(session.key, last)
    except RedisUnavailable:
        raise NotReady("Streams can't be resumed now: Redis does not answer. Try again.") from None


async def _resumed(gateway: Gateway, session: Session, found: StoredStream) -> AsyncGenerator[bytes, None]:
    """What the stream of a POST brought since, and what it brings yet."""
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(2)

    async def read() -> None:
        try:
            async with aclosing(gateway.event_log.resume(found)) as events:
                async for id, payload in events:
                    await waiting.put(encode_event(payload, name="message", id=id))
        except (EventUnknown, RedisUnavailable) as error:
            gap = error if isinstance(error, EventUnknown) else EventUnknown("Redis does not answer")
            for request in found.pending:
                await waiting.put(encode_event(encode(Failure(request, gap.code, gap.detail)), name="message"))
        await waiting.put(None)

    reading = asyncio.create_task(read())
    try:
        yield KEEP_ALIVE
        while not session.ended:
            try:
                async with asyncio.timeout(gateway.settings.keepalive_seconds):
                    frame = await waiting.get()
            except TimeoutError:
                yield KEEP_ALIVE
                continue
            if frame is None:
                return
            yield frame
    finally:
        await end([reading])


async def _own(
    gateway: Gateway, principal: Principal, session: Session, found: StoredStream | None
) -> AsyncGenerator[bytes, None]:
    """What the session's upstreams say by themselves, and that lists changed; first what an older stream did not."""
    recording = gateway.event_log.begin(session.key, principal=principal.id, own=True)
    own_stream: GetStream | None = None
    try:
        own_stream = await gateway.sessions.listen(session, gateway.authenticator.current(principal) or principal)
        if session.version in versions.HAS_PRIMING:
            yield encode_event(b"", id=recording.first, retry=RETRY_MS)
        yield KEEP_ALIVE  # so that the client sees the stream open
        if found is not None:
            for missed in await _missed(gateway, found):
                yield encode_event(missed, name="message", id=recording.event(missed))
        pause = _SECOND_SECONDS  # a buffering proxy lets the first comment pass with the head: `check` awaits two
        while not own_stream.closed:
            payload = await own_stream.next(pause)
            if payload is None:
                yield KEEP_ALIVE
                pause = gateway.settings.keepalive_seconds
                own_stream.look_again()
                continue
            yield encode_event(payload, name="message", id=recording.event(payload))
    finally:
        recording.end()
        if own_stream is not None:
            await gateway.sessions.listen_no_more(session, own_stream)


async def _missed(gateway: Gateway, found: StoredStream) -> list[bytes]:
    """What the older stream of this session sent and the client did not get."""
    missed: list[bytes] = []
    try:
        async with asyncio.timeout(_SETTLE_SECONDS), aclosing(gateway.event_log.resume(found)) as events:
            async for _, payload in events:
                missed.append(payload)
    except (TimeoutError, EventUnknown, RedisUnavailable):
        pass  # its worker is gone, or it is too long ago
    return missed
