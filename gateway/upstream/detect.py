"""Finds out what a server speaks: streamable HTTP first, then the old SSE transport, then the plain REST face.

A refused connection, 401, 403 and silence are no verdict; they are what they are. Each session remembers its way. Where
nothing is found at a URL without a path, `/mcp` below it is tried, so that the error can name the right address; it is
not used by itself, since the address that is registered is the one that is called.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable

from gateway.errors import UpstreamError, UpstreamProtocolError
from gateway.protocol.exchange import Hello
from gateway.protocol.messages import Failure, Notification, Reply, Request
from gateway.upstream.contract import Heard, MessageStream, Upstream, UpstreamSession
from gateway.upstream.rest import VERSION


class Guess:
    """Another URL at which the server may speak MCP."""

    def __init__(self, url: str, upstream: Upstream) -> None:
        self.url = url
        self._upstream = upstream

    async def speaks_mcp(self, hello: Hello) -> bool:
        """Shake hands there and end the session again."""
        try:
            session = await self._upstream.open(hello)
        except UpstreamError:
            return False
        await self._upstream.end(session)
        return True


class DetectingUpstream:
    """One server, spoken to as MCP if it is that, else by its REST face."""

    def __init__(self, mcp: Upstream, sse: Upstream, rest: Upstream, guess: Guess | None = None) -> None:
        self._guess = guess
        self._mcp = mcp
        self._sse = sse
        self._rest = rest

    async def open(self, hello: Hello) -> UpstreamSession:
        try:
            return await self._mcp.open(hello)
        except UpstreamProtocolError as no_mcp:
            for other in (self._sse, self._rest):
                try:
                    return await other.open(hello)
                except UpstreamError:
                    pass
            if self._guess is not None and await self._guess.speaks_mcp(hello):
                raise UpstreamProtocolError(
                    no_mcp.server,
                    f"{no_mcp.detail} Its MCP endpoint seems to be {self._guess.url}: register that URL.",
                    **no_mcp.facts_beside_server,
                ) from None
            raise no_mcp from None

    def call(self, session: UpstreamSession, request: Request) -> Awaitable[Reply | Failure | MessageStream]:
        return self._way(session).call(session, request)

    def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        return self._way(session).listen(session, after)

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        await self._way(session).post(session, message)

    async def end(self, session: UpstreamSession) -> None:
        await self._way(session).end(session)

    async def close(self) -> None:
        await self._mcp.close()
        await self._sse.close()
        await self._rest.close()

    def _way(self, session: UpstreamSession) -> Upstream:
        if session.holder is not None:
            return self._sse
        return self._rest if session.handshake.version == VERSION else self._mcp
