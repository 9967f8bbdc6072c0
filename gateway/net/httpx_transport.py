"""The same connections for who wants httpx: everything off the hot path that a library does over it.

`httpx.AsyncClient(transport=Http1Transport(dialer.client({})))` connects to vetted addresses only, as all else does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

import httpx

from gateway.net.http1_client import Connection, Response
from gateway.net.http_client import HttpClient

_ILLEGAL = re.compile(rb"[\x00\r\n]")

Made = TypeVar("Made")


class Http1Transport(httpx.AsyncBaseTransport):
    """An httpx transport over the connections of one client; of httpx's timeouts it keeps `read` and `write`.

    How long a connect may take, or the wait for a free connection, is the client's.
    """

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the answer's body is a stream. Raises httpx.TransportError or AddressRefused."""
        timeouts = request.extensions.get("timeout", {})
        connections = self._client.connections(request.url)
        connection = await connections.take()
        response = connection.begin(_head(request), bodiless=request.method == "HEAD", has_more=True)
        try:
            await _send_body(connection, request, timeouts.get("write"))
            await _within(timeouts.get("read"), response.head(), httpx.ReadTimeout("no answer in time"))
        except BaseException:
            response.close()
            raise
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response, timeouts.get("read")),
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def aclose(self) -> None:
        """Let go of every connection."""
        self._client.close()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: Response, seconds: float | None) -> None:
        self._response = response
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        late = httpx.ReadTimeout("the answer stopped in the middle")
        while data := await _within(self._seconds, self._response.receive(), late):
            yield data

    async def aclose(self) -> None:
        self._response.close()


def _head(request: httpx.Request) -> bytes:
    """A request's head. Raises httpx.LocalProtocolError."""
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % pair for pair in request.headers.raw]
    if any(_ILLEGAL.search(line) for line in lines):
        raise httpx.LocalProtocolError("a header or the method holds a line break")
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def _send_body(connection: Connection, request: httpx.Request, seconds: float | None) -> None:
    """Send the body as it comes, until the server has answered without the rest of it."""
    is_chunked = "transfer-encoding" in request.headers
    late = httpx.WriteTimeout("the server does not read the request")
    stream: Any = request.stream  # of an AsyncClient's request it is always one that is asynchronous
    async for part in stream:
        data = b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else part
        if part and not await _within(seconds, connection.write(data), late):
            return
    if is_chunked:
        await connection.write(b"0\r\n\r\n")
    connection.sent()


async def _within(seconds: float | None, work: Awaitable[Made], late: httpx.TimeoutException) -> Made:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise late from None
