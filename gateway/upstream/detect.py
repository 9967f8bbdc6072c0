"""Finds out what a server speaks: streamable HTTP first, then the old SSE transport, then the plain REST face.

A refused connection, 401, 403 and silence are no verdict; they are what they are. Each link remembers its way. Where
nothing is found at a URL without a path, `/mcp` below it is tried, so that the error can name the right address; it is
not used by itself, since the address that is registered is the one that is called.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from gateway.errors import UpstreamError, UpstreamProtocolError
from gateway.protocol.exchange import Hello
from gateway.protocol.messages import Failure, Message, Notification, Reply, Request
from gateway.upstream.contract import Answering, Heard, Interrupted, Link, Upstream
from gateway.upstream.rest import VERSION


class Guess:
    """Another URL at which the server may speak MCP."""

    def __init__(self, url: str, upstream: Upstream) -> None:
        self.url = url
        self._upstream = upstream

    async def speaks_mcp(self, hello: Hello) -> bool:
        """Shake hands there and end the session again."""
        try:
            link = await self._upstream.open(hello)
        except UpstreamError:
            return False
        await self._upstream.end(link)
        return True


class ProbingUpstream:
    """One server, spoken to as MCP if it is that, else by its REST face."""

    def __init__(self, mcp: Upstream, sse: Upstream, rest: Upstream, guess: Guess | None = None) -> None:
        self._guess = guess
        self._mcp = mcp
        self._sse = sse
        self._rest = rest

    async def open(self, hello: Hello) -> Link:
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

    def send(self, link: Link, request: Request) -> AsyncGenerator[Answering | Interrupted | Message, None]:
        return self._way(link).send(link, request)

    def listen(self, link: Link, after: str | None) -> AsyncGenerator[Heard, None]:
        return self._way(link).listen(link, after)

    async def post(self, link: Link, message: Notification | Reply | Failure) -> None:
        await self._way(link).post(link, message)

    async def end(self, link: Link) -> None:
        await self._way(link).end(link)

    async def close(self) -> None:
        await self._mcp.close()
        await self._sse.close()
        await self._rest.close()

    def _way(self, link: Link) -> Upstream:
        if link.holder is not None:
            return self._sse
        return self._rest if link.handshake.version == VERSION else self._mcp
