"""HTTP/1.1 from the client's side: a connection, and answers that are read as they arrive.

Bytes are parsed by httptools (llhttp, strict). Knows nothing of MCP or of addresses; which connection carries a request
is the pool's (`connections`). Errors are httpx's, since `httpx_transport` offers the same connections to httpx.

A connection is *idle* (in the pool), *busy* (it carries one request; requests are never pipelined) or *closed*.
It is busy from `begin` until its answer is complete, whether or not anybody has read that, and becomes idle again only
if the answer was framed well, nothing followed it, the request was sent whole and neither side asked for the end. In
every other case it is closed, so that no byte of one answer can be taken for another's (response smuggling). What
arrives on an idle connection closes it.

One that was idle for a while is looked at before it is used, so that a request never goes out on one that its server
has closed. A request is not sent twice: whether a server that closes in the middle has carried it out can't be known
here. Where several are under way, whole requests are written at the end of the loop's turn, one after the other: a
write wakes the server, which costs a tenth of a call, and of several in a row only the first does. What arrives, or
closes, before that is no answer, and nothing has been sent then.

Backpressure: an answer whose reader is slow stops the connection's reading at `_HIGH_WATER` bytes; a body that is sent
in parts waits while the other side does not read.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import httptools
import httpx

_HIGH_WATER = 256 << 10
_MAX_HEAD = 64 << 10  # bytes of an answer's head, and of its trailers
_MAX_HEADERS = 256
_MAX_INTERIM = 16  # answers like 103 before the real one
_LOOK_AFTER_SECONDS = 0.05  # an idle connection is looked at when it waited longer: the look is a system call


_NO_HEADERS: Mapping[bytes, bytes] = MappingProxyType({})


class Response:
    """One answer: its head once `head` returned, its body as `receive` or `read` brings it.

    Who has it closes it; that does nothing once the answer is complete.
    """

    __slots__ = ("_chunks", "_connection", "_error", "_waiter", "complete", "headers", "named", "size", "status")

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self._chunks: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        """Names in lower case and values, as they came."""
        self.named: Mapping[bytes, bytes] = _NO_HEADERS
        """The same by name, the first value where one was repeated."""
        self.size = 0
        """Bytes of the body that have arrived and were not read."""
        self.complete = False

    def header(self, name: bytes) -> str:
        """The first value of a header; empty if there is none."""
        return self.named.get(name, b"").decode("latin-1")

    async def head(self) -> Response:
        """Wait for the head, and return the answer itself. Raises httpx.TransportError."""
        try:
            while not self.status:
                if self._error is not None:
                    raise self._error
                await self._news()
        except BaseException:
            self.close()
            raise
        return self

    async def receive(self) -> bytes:
        """The next part of the body, empty at its end. Raises httpx.TransportError."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.complete or self._connection is None:
                return b""
            await self._news()
        data = self._taken()
        if self._connection is not None:
            self._connection.resume()
        return data

    def whole(self, limit: int) -> bytes | None:
        """The rest of the body if all of it is here, and has no more than `limit` bytes."""
        return self._taken() if self.complete and self.size <= limit and self._error is None else None

    async def read(self, limit: int) -> bytes | None:
        """The rest of the body, None when it is larger than `limit` bytes. Raises httpx.TransportError."""
        parts, size = [], 0
        while part := await self.receive():
            parts.append(part)
            size += len(part)
            if size > limit:
                return None
        return b"".join(parts)

    def close(self) -> None:
        """Give the answer up: unless it is complete its connection is closed."""
        connection, self._connection = self._connection, None
        if connection is not None and not self.complete:
            connection.close()

    @property
    def is_closed(self) -> bool:
        """Whether nothing more will arrive."""
        return self.complete or self._connection is None

    def _taken(self) -> bytes:
        """What is here of the body."""
        chunks = self._chunks
        self._chunks = []
        self.size = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _news(self) -> asyncio.Future[None]:
        """Something to await until more is known of the answer. Raises httpx.ReadError."""
        if self._connection is None:
            raise httpx.ReadError("the answer was given up")
        self._waiter = waiter = self._connection.loop.create_future()
        return waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._connection = None
        self._wake()

    def _finish(self) -> None:
        self.complete = True
        self._connection = None
        self._wake()


class Pool(Protocol):
    """Who has the connections to one origin, as far as a connection must know."""

    loop: asyncio.AbstractEventLoop

    def made(self, connection: Connection) -> None:
        """A connection is there."""
        ...

    def release(self, connection: Connection) -> None:
        """A connection is free for the next request."""
        ...

    def flush_later(self, connection: Connection) -> bool:
        """Have the connection's `flush` called at the end of the loop's turn; False where it is better called now."""
        ...

    def lost(self, connection: Connection) -> None:
        """A connection is gone, or is no good any more."""
        ...


class Connection(asyncio.Protocol):
    """One connection, and httptools' calls about what arrives on it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.loop = pool.loop
        self._transport: Any = None  # uvloop's are no asyncio.Transport
        self._parser: Any = None
        self._response: Response | None = None
        self._bodiless = False
        self._unsent = b""
        self._is_sending = False
        self._head_size = 0
        self._interim = 0
        self._has_head = False
        self._is_whole = False
        self._keeps = False
        self._until_end = False
        self._is_extra = False
        self._paused = False
        self._writable: asyncio.Future[None] | None = None
        self._poll: Any = None
        self.idle_since = 0.0

    # --- requests -----------------------------------------------------------------------------------------------

    def begin(self, data: bytes, *, bodiless: bool = False, has_more: bool = False) -> Response:
        """Send a request, or its beginning; `bodiless` if its answer has no body whatever its head says (HEAD)."""
        response = self._response = Response(self)
        self._bodiless = bodiless
        self._is_sending = has_more
        self._has_head = self._is_whole = self._until_end = False
        self._head_size = self._interim = 0
        if has_more or not self._pool.flush_later(self):
            self._transport.write(data)
        else:
            self._unsent = data
        return response

    def flush(self) -> None:
        """Write the request that was begun, if it is still wanted; on a connection that closes it stays unsent."""
        if not self._transport.is_closing():
            data, self._unsent = self._unsent, b""
            try:
                self._transport.write(data)
            except (RuntimeError, OSError) as error:  # uvloop's, of a handle that is closed; others are to be written
                self.fail(httpx.WriteError(str(error)))

    async def write(self, data: bytes) -> bool:
        """Send more of a request's body, when the other side reads; False when it wants no more of it."""
        if self._writable is not None:
            await self._writable
        if self._response is None or self._response.status or self._transport.is_closing():
            return False
        self._transport.write(data)
        return True

    def sent(self) -> None:
        """The request, which had more, is whole now."""
        self._is_sending = False

    def usable(self, now: float) -> bool:
        """Whether an idle connection can take a request: its server has not closed it."""
        if self._transport.is_closing():
            return False
        if now - self.idle_since < _LOOK_AFTER_SECONDS:
            return True
        if self._poll is None:
            found = self._transport.get_extra_info("socket")
            if found is None:
                return True
            self._poll = select.poll()
            self._poll.register(found.fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def close(self) -> None:
        """Let go of the connection, at once; whoever waits for its answer has been told, or left."""
        is_busy, self._response = self._response is not None, None
        self._pool.lost(self)
        if is_busy:
            self._transport.abort()
        else:
            self._transport.close()

    def fail(self, error: Exception) -> None:
        """End the answer with an error, and the connection."""
        response = self._response
        self.close()
        if response is not None:
            response._fail(error)

    def resume(self) -> None:
        """The answer was read as far as it is here."""
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # --- asyncio ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)
        self._pool.made(self)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:  # nothing was asked
            self.close()
            return
        if self._unsent:
            self.fail(_not_asked())
            return
        if not self._has_head:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(httpx.RemoteProtocolError("the server switched to another protocol, unasked"))
            return
        except httptools.HttpParserError as error:
            if not self._is_whole:
                said = error.__context__  # what was raised below, out of one of httptools' calls
                if not isinstance(said, httpx.RemoteProtocolError):
                    said = httpx.RemoteProtocolError(f"its answer is no valid HTTP/1.1: {error}")
                self.fail(said)
                return
            self._keeps = False
        if self._is_whole:
            self._end(response)
        elif not self._has_head:
            if self._head_size > _MAX_HEAD:
                self.fail(_large_head())
        else:
            if response.size > _HIGH_WATER and not self._paused:
                self._paused = True
                self._transport.pause_reading()
            response._wake()

    def eof_received(self) -> None:
        """The server sends no more: the transport closes, and `connection_lost` follows."""

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.lost(self)
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        response, self._response = self._response, None
        if response is None:
            return
        if self._unsent:
            response._fail(_not_asked())
        elif self._until_end and error is None:
            response._finish()
        elif error is not None:
            lost = httpx.ReadError(str(error) or type(error).__name__)
            lost.__cause__ = error
            response._fail(lost)
        elif response.status:
            response._fail(httpx.RemoteProtocolError("the server closed the connection before its answer was complete"))
        else:
            response._fail(httpx.RemoteProtocolError("the server closed the connection without an answer"))

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- httptools ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._is_extra = self._is_whole

    def on_header(self, name: bytes, value: bytes) -> None:
        response = self._response
        if response is None or self._is_extra:
            return
        if not self._has_head:
            response.headers.append((name.lower(), value))
            return
        self._head_size += len(name) + len(value) + 4  # a trailer, which nobody asked for
        if self._head_size > _MAX_HEAD:
            raise _large_head()

    def on_headers_complete(self) -> None:
        response, parser = self._response, self._parser
        if response is None or self._is_extra:
            return
        status, version = parser.get_status_code(), parser.get_http_version()
        if status < 200:
            return
        self._keeps = parser.should_keep_alive()
        headers = response.headers
        named = response.named = dict(headers)
        if len(named) != len(headers):
            named = response.named = dict(reversed(headers))
        is_large = self._head_size > _MAX_HEAD and sum(len(name) + len(value) for name, value in headers) > _MAX_HEAD
        if is_large or len(headers) > _MAX_HEADERS:
            raise _large_head()
        framed = b"content-length" in named
        if b"transfer-encoding" in named:
            framed = True
            for value in (value for name, value in headers if name == b"transfer-encoding"):
                if value.lower() != b"chunked" or version != "1.1":
                    raise httpx.RemoteProtocolError(f"its answer has a Transfer-Encoding of {value[:40]!r}")
        if version not in ("1.1", "1.0"):
            raise httpx.RemoteProtocolError(f"it answers in HTTP/{version}")
        self._until_end = not framed and not self._keeps
        self._has_head = True
        self._head_size = 0
        response.status = status
        if self._bodiless:
            self._is_whole, self._keeps = True, False

    def on_body(self, body: bytes) -> None:
        response = self._response
        if response is not None and not self._is_whole:
            response._chunks.append(body)
            response.size += len(body)

    def on_message_complete(self) -> None:
        response = self._response
        if response is None or self._is_extra:
            return
        if self._has_head:
            self._is_whole = True
            return
        response.headers.clear()  # an interim answer; the real one follows
        self._interim += 1
        if self._interim > _MAX_INTERIM:
            raise httpx.RemoteProtocolError(f"it sent more than {_MAX_INTERIM} interim answers")

    def _end(self, response: Response) -> None:
        """The answer is whole: the connection is idle, or is closed."""
        self._response = None
        is_sent = not self._is_sending and not self._transport.get_write_buffer_size()
        keeps = self._keeps and is_sent and not self._is_extra
        if self._paused:
            self.resume()
        if keeps:
            self._pool.release(self)
        else:
            self.close()
        response._finish()


def _not_asked() -> httpx.ConnectError:
    return httpx.ConnectError("the server ended the connection, or spoke on it, before the request was sent")


def _large_head() -> httpx.RemoteProtocolError:
    return httpx.RemoteProtocolError(f"its answer has more than {_MAX_HEADERS} headers, or {_MAX_HEAD} bytes of them")
