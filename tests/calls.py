"""A call of an upstream with everything that came, whether its answer was a stream or not."""

from collections.abc import AsyncGenerator

from gateway.protocol.messages import Failure, Message, Reply, Request
from gateway.upstream.contract import Interrupted, StreamOpened, Upstream, UpstreamSession


async def messages_of(
    upstream: Upstream, session: UpstreamSession, request: Request
) -> AsyncGenerator[StreamOpened | Interrupted | Message, None]:
    """What comes for one request, its answer last; close it, as the contract says of a stream."""
    answer = await upstream.call(session, request)
    if isinstance(answer, Reply | Failure):
        yield answer
        return
    try:
        async for message in answer:
            yield message
    finally:
        await answer.aclose()
