"""HTTP/1.1 from the client's side: kept connections to one origin, and answers that are read as they arrive.

Bytes are parsed by httptools (llhttp, strict); how to connect is the caller's (`dialer`). Knows nothing of MCP or of
addresses. Errors are httpx's, since `httpx_transport` offers the same connections to httpx.

A connection is *idle* (in the pool), *busy* (it carries one request; requests are never pipelined) or *closed*.
It is busy from `begin` until its answer is complete, whether or not anybody has read that, and becomes idle again only
if the answer was framed well, nothing followed it, the request was sent whole and neither side asked for the end. In
every other case it is closed, so that no byte of one answer can be taken for another's (response smuggling). What
arrives on an idle connection closes it.

An idle connection is closed after `keepalive_seconds`, which is less than what servers keep; one that waited a while
is looked at before it is used, so that a request never goes out on one that its server has closed. A request is not
sent twice: whether a server that closes in the middle has carried it out can't be known here.

Backpressure: an answer whose reader is slow stops the connection's reading at `_HIGH_WATER` bytes; a body that is sent
in parts waits while the other side does not read.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import httpx

Dial = Callable[[Callable[[], asyncio.Protocol]], Awaitable[None]]
"""Connects a protocol. Raises httpx.ConnectError or httpx.ConnectTimeout, or AddressRefused."""

_HIGH_WATER = 256 << 10
_MAX_HEAD = 64 << 10  # bytes of an answer's head, and of its trailers
_MAX_HEADERS = 256
_MAX_INTERIM = 16  # answers like 103 before the real one
_LOOK_AFTER_SECONDS = 0.05  # an idle connection is looked at when it waited longer: the look is a system call


class Response:
    """One answer: its head once `head` returned, its body as `receive` or `read` brings it.

    Who has it closes it; that does nothing once the answer is complete.
    """

    __slots__ = ("_chunks", "_connection", "_error", "_waiter", "complete", "headers", "size", "status")

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self._chunks: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        """Names in lower case and values, as they came."""
        self.size = 0
        """Bytes of the body that have arrived and were not read."""
        self.complete = False

    def header(self, name: bytes) -> str:
        """The first value of a header; empty if there is none."""
        for each, value in self.headers:
            if each == name:
                return value.decode("latin-1")
        return ""

    async def head(self) -> None:
        """Wait for the head. Raises httpx.TransportError."""
        try:
            while not self.status:
                if self._error is not None:
                    raise self._error
                await self._wait()
        except BaseException:
            self.close()
            raise

    async def receive(self) -> bytes:
        """The next part of the body, empty at its end. Raises httpx.TransportError."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.complete or self._connection is None:
                return b""
            await self._wait()
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self.size = 0
        if self._connection is not None:
            self._connection.resume()
        return data

    async def read(self, limit: int) -> bytes | None:
        """The rest of the body, None when it is larger than `limit` bytes. Raises httpx.TransportError."""
        if self.complete and self._error is None:
            return await self.receive() if self.size <= limit else None
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

    async def _wait(self) -> None:
        if self._connection is None:
            return
        self._waiter = self._connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._connection = None
        self._wake()

    def _finish(self) -> None:
        self.complete = True
        self._connection = None
        self._wake()


class Connection(asyncio.Protocol):
    """One connection, and httptools' calls about what arrives on it."""

    def __init__(self, pool: Connections) -> None:
        self._pool = pool
        self.loop = pool.loop
        self._transport: Any = None  # uvloop's are no asyncio.Transport
        self._parser: Any = None
        self._response: Response | None = None
        self._bodiless = False
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
        self._transport.write(data)
        return response

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
            self._head_size += len(data)
            if self._head_size > _MAX_HEAD:
                self.fail(httpx.RemoteProtocolError(f"the head of its answer has more than {_MAX_HEAD} bytes"))
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
        if self._until_end and error is None:
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
        self._head_size += len(name) + len(value) + 4
        if self._head_size > _MAX_HEAD or len(response.headers) >= _MAX_HEADERS:
            raise httpx.RemoteProtocolError(
                f"its answer has more than {_MAX_HEADERS} headers or {_MAX_HEAD} bytes of them"
            )
        if not self._has_head:  # else it is a trailer, which nobody asked for
            response.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        response, parser = self._response, self._parser
        if response is None or self._is_extra:
            return
        status = parser.get_status_code()
        if status < 200:
            return
        self._keeps = parser.should_keep_alive()
        framed = False
        for name, value in response.headers:
            if name == b"content-length":
                framed = True
            elif name == b"transfer-encoding":
                framed = True
                if value.lower() != b"chunked" or parser.get_http_version() != "1.1":
                    raise httpx.RemoteProtocolError(f"its answer has a Transfer-Encoding of {value[:40]!r}")
        if parser.get_http_version() not in ("1.1", "1.0"):
            raise httpx.RemoteProtocolError(f"it answers in HTTP/{parser.get_http_version()}")
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
        self.resume()
        if keeps:
            self._pool.release(self)
        else:
            self.close()
        response._finish()


class Connections:
    """The kept connections to one origin, at most `limit`; who finds none free waits in line, but not for long."""

    def __init__(self, dial: Dial, *, limit: int, keepalive_seconds: float, wait_seconds: float) -> None:
        self._dial = dial
        self._limit = limit
        self._keepalive_seconds = keepalive_seconds
        self._wait_seconds = wait_seconds
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._dialing = 0
        self._line: deque[asyncio.Future[Connection | None]] = deque()
        self._sweeping: asyncio.TimerHandle | None = None
        self.loop = asyncio.get_running_loop()
        self.is_closed = False

    @property
    def busy(self) -> int:
        """How many carry a request now."""
        return len(self._all) - len(self._idle)

    async def send(self, data: bytes) -> Response:
        """Send a whole request and wait for the head of its answer. Raises httpx.TransportError, AddressRefused."""
        response = (self._free() or await self._connected()).begin(data)
        await response.head()
        return response

    async def take(self) -> Connection:
        """A connection for one request, which has to be begun at once. Raises httpx.TransportError, AddressRefused."""
        return self._free() or await self._connected()

    def close(self) -> None:
        """Close every connection, also those that carry a request."""
        self.is_closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._all):
            connection.fail(httpx.ReadError("the connections to it were closed"))
        for waiting in self._line:
            if not waiting.done():
                waiting.set_result(None)

    # --- what connections say -----------------------------------------------------------------------------------

    def made(self, connection: Connection) -> None:
        """A connection is there."""
        self._all.add(connection)

    def release(self, connection: Connection) -> None:
        """A connection is free for the next request."""
        if self.is_closed:
            connection.close()
            return
        while self._line:
            waiting = self._line.popleft()
            if not waiting.done():
                waiting.set_result(connection)
                return
        connection.idle_since = self.loop.time()
        self._idle.append(connection)
        if self._sweeping is None:
            self._sweeping = self.loop.call_later(self._keepalive_seconds, self._sweep)

    def lost(self, connection: Connection) -> None:
        """A connection is gone: the next in line may make another one."""
        if connection not in self._all:
            return
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._pass_on()

    def _pass_on(self) -> None:
        """Let the first in line make a connection, for which there is room now."""
        while self._line and len(self._all) + self._dialing < self._limit:
            waiting = self._line.popleft()
            if not waiting.done():
                self._dialing += 1  # held for it
                waiting.set_result(None)

    # --- finding one --------------------------------------------------------------------------------------------

    def _free(self) -> Connection | None:
        """The idle connection that was used last, if one is there and its server still keeps it."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable(self.loop.time()):
                return connection
            connection.close()
        return None

    async def _connected(self) -> Connection:
        """A new connection, or the next that becomes free."""
        self._check_open()
        if len(self._all) + self._dialing >= self._limit:
            found = await self._wait_in_line()
            if found is not None:
                return found
        else:
            self._dialing += 1
        made: list[Connection] = []

        def protocol() -> Connection:
            made.append(Connection(self))
            return made[-1]

        try:
            await self._dial(protocol)  # which may try several addresses
        except BaseException:
            for each in made:
                if each in self._all:
                    each.close()
            raise
        finally:
            self._dialing -= 1
            self._pass_on()
        connection = made[-1]
        if connection not in self._all:
            raise httpx.ReadError("the server closed the connection at once")
        if self.is_closed:
            connection.close()
        self._check_open()
        return connection

    def _check_open(self) -> None:
        if self.is_closed:
            raise httpx.ConnectError("the connections were closed")

    async def _wait_in_line(self) -> Connection | None:
        """A connection that became free, or None when there is room to make one (which is counted already)."""
        waiting: asyncio.Future[Connection | None] = self.loop.create_future()
        self._line.append(waiting)
        try:
            async with asyncio.timeout(self._wait_seconds):
                found = await waiting
        except BaseException as error:
            if waiting.done() and not waiting.cancelled():  # it came, too late
                self._give_back(waiting.result())
            elif waiting in self._line:
                self._line.remove(waiting)
            if isinstance(error, TimeoutError):
                raise httpx.PoolTimeout(
                    f"all {self._limit} connections to it were in use for {self._wait_seconds:g} s"
                ) from None
            raise
        self._check_open()
        return found

    def _give_back(self, found: Connection | None) -> None:
        if found is not None:
            self.release(found)
        elif not self.is_closed:
            self._dialing -= 1
            self._pass_on()

    def _sweep(self) -> None:
        """Close what was idle for too long; the oldest stand first."""
        self._sweeping = None
        now = self.loop.time()
        while self._idle and now - self._idle[0].idle_since >= self._keepalive_seconds - 0.01:
            self._idle[0].close()
        if self._idle:
            after = max(0.1, self._idle[0].idle_since + self._keepalive_seconds - now)
            self._sweeping = self.loop.call_later(after, self._sweep)
