"""A stdio server, reached through the bridge that runs it: streamable HTTP over a unix socket.

Source: MCP 2025-11-25, basic, transports.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import httpx
import orjson

from gateway.errors import UpstreamProtocolError, UpstreamUnreachable
from gateway.model.server import NO_PROGRAMS
from gateway.protocol.exchange import Hello
from gateway.protocol.messages import Failure, Message, Notification, Reply, Request
from gateway.upstream.contract import Answering, Heard, Interrupted, Link
from gateway.upstream.streamable_http import HttpUpstream, Limits, foreign

_NOTHING: tuple[Any, ...] = ()
_SHARED = {"mcp-gateway-shared": "1"}


class StdioUpstream:
    """One server that the bridge runs; `program` is what it is told to run, `holder` names the bridge."""

    def __init__(
        self, server: str, key: str, program: dict[str, Any], client: httpx.AsyncClient, limits: Limits, holder: str
    ) -> None:
        self._server = server
        self._place = f"http://bridge/{key}"
        self._program = orjson.dumps(program)
        self._client = client
        self._mcp = HttpUpstream(server, f"{self._place}/mcp", client, limits)
        self._holder = holder

    async def open(self, hello: Hello) -> Link:
        with foreign(self._server):
            answer = await self._client.put(self._place, content=self._program)
        if answer.status_code != 204:
            raise UpstreamUnreachable(self._server, f"The bridge did not take server {self._server!r}.")
        try:
            link = await self._mcp.open(hello, _SHARED if hello.shared else {})
        except UpstreamProtocolError as error:
            if error.facts.get("upstream_status") == 503:
                raise UpstreamUnreachable(
                    self._server, error.detail.replace("answered HTTP 503", "does not run")
                ) from None
            raise
        return replace(link, holder=self._holder)

    def send(self, link: Link, request: Request) -> AsyncGenerator[Answering | Interrupted | Message, None]:
        return self._mcp.send(link, request)

    def listen(self, link: Link, after: str | None) -> AsyncGenerator[Heard, None]:
        return self._mcp.listen(link, after)

    async def post(self, link: Link, message: Notification | Reply | Failure) -> None:
        await self._mcp.post(link, message)

    async def end(self, link: Link) -> None:
        await self._mcp.end(link)

    async def close(self) -> None:
        await self._mcp.close()


class NoBridge:
    """Stands in where no bridge runs, or programs are not allowed: it says so."""

    def __init__(self, server: str) -> None:
        self._server = server

    def _why(self) -> UpstreamUnreachable:
        return UpstreamUnreachable(self._server, NO_PROGRAMS.replace("It", f"Server {self._server!r}", 1))

    async def open(self, hello: Hello) -> Link:
        raise self._why()

    async def send(self, link: Link, request: Request) -> AsyncGenerator[Answering | Interrupted | Message, None]:
        for nothing in _NOTHING:
            yield nothing
        raise self._why()

    async def listen(self, link: Link, after: str | None) -> AsyncGenerator[Heard, None]:
        for nothing in _NOTHING:
            yield nothing
        raise self._why()

    async def post(self, link: Link, message: Notification | Reply | Failure) -> None:
        raise self._why()

    async def end(self, link: Link) -> None:
        """There is nothing to end."""

    async def close(self) -> None:
        """There is nothing to let go of."""
