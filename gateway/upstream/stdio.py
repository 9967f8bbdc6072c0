"""A stdio server, reached through the bridge that runs it: streamable HTTP over a unix socket.

Source: MCP 2025-11-25, basic, transports.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import orjson

from gateway.errors import UpstreamProtocolError, UpstreamUnreachable
from gateway.model.server import NO_PROGRAMS
from gateway.net.http_client import HttpClient
from gateway.protocol.exchange import Hello
from gateway.protocol.messages import Failure, Notification, Reply, Request
from gateway.upstream.contract import Heard, MessageStream, UpstreamSession
from gateway.upstream.streamable_http import StreamableHttpUpstream
from gateway.upstream.wire import WireLimits, foreign

_NOTHING: tuple[Any, ...] = ()
_SHARED = b"mcp-gateway-shared: 1\r\n"


class StdioUpstream:
    """One server that the bridge runs; `program` is what it is told to run, `holder` names the bridge."""

    def __init__(
        self, server: str, key: str, program: dict[str, Any], client: HttpClient, limits: WireLimits, holder: str
    ) -> None:
        self._server = server
        self._place = f"http://bridge/{key}"
        self._program = orjson.dumps(program)
        self._client = client
        self._mcp = StreamableHttpUpstream(server, f"{self._place}/mcp", client, limits)
        self._holder = holder

    async def open(self, hello: Hello) -> UpstreamSession:
        with foreign(self._server):
            answer = await self._client.send("PUT", self._place, body=self._program)
            answer.close()
        if answer.status != 204:
            raise UpstreamUnreachable(self._server, f"The bridge did not take server {self._server!r}.")
        try:
            session = await self._mcp.open(hello, _SHARED if hello.shared else b"")
        except UpstreamProtocolError as error:
            if error.facts.get("upstream_status") == 503:
                raise UpstreamUnreachable(
                    self._server, error.detail.replace("answered HTTP 503", "does not run")
                ) from None
            raise
        return replace(session, holder=self._holder)

    async def call(self, session: UpstreamSession, request: Request) -> Reply | Failure | MessageStream:
        return await self._mcp.call(session, request)

    def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        return self._mcp.listen(session, after)

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        await self._mcp.post(session, message)

    async def end(self, session: UpstreamSession) -> None:
        await self._mcp.end(session)

    async def close(self) -> None:
        await self._mcp.close()


class NoBridge:
    """Stands in where no bridge runs, or programs are not allowed: it says so."""

    def __init__(self, server: str) -> None:
        self._server = server

    def _why(self) -> UpstreamUnreachable:
        return UpstreamUnreachable(self._server, NO_PROGRAMS.replace("It", f"Server {self._server!r}", 1))

    async def open(self, hello: Hello) -> UpstreamSession:
        raise self._why()

    async def call(self, session: UpstreamSession, request: Request) -> Reply | Failure | MessageStream:
        raise self._why()

    async def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        for nothing in _NOTHING:
            yield nothing
        raise self._why()

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        raise self._why()

    async def end(self, session: UpstreamSession) -> None:
        """There is nothing to end."""

    async def close(self) -> None:
        """There is nothing to let go of."""
