"""Finds out what a server speaks: streamable HTTP first, then the old SSE transport, then the plain REST face.

A refused connection, 401, 403 and silence are no verdict; they are what they are. Each link remembers its way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from gateway.errors import UpstreamError, UpstreamProtocolError
from gateway.protocol.exchange import Hello
from gateway.protocol.messages import Failure, Message, Notification, Reply, Request
from gateway.upstream.base import Answering, Heard, Interrupted, Link, Upstream
from gateway.upstream.rest import VERSION


class ProbingUpstream:
    """One server, spoken to as MCP if it is that, else by its REST face."""

    def __init__(self, mcp: Upstream, sse: Upstream, rest: Upstream) -> None:
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
