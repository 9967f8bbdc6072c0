"""One request under hypercorn and its answer, as ASGI's `receive` and `send`: bodies in and out, answers framed.

Knows ASGI and the writing side of HTTP/1.1; what arrives, and when a connection goes on, is the connection's (`http1`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from hypercorn.config import Config
from hypercorn.typing import TaskGroup, WorkerContext

_AT_ONCE = 64 << 10  # bytes of an answer that is written without waiting for the end of the loop's turn
HIGH_WATER = 256 << 10
"""Bytes of a body that the application has not asked for yet; with more the connection reads nothing."""

_BREAKS = b"\r\n\0"
_CONTINUE = b"HTTP/1.1 100 \r\n\r\n"
_WITHOUT_BODY = frozenset({204, 304})
_FRAMING = frozenset({b"transfer-encoding", b"connection"})
_USUAL = frozenset({b"content-type", b"content-length", b"x-request-id", b"cache-control", b"mcp-session-id"})
"""Names of which nothing has to be looked at."""

Message = dict[str, Any]


class Shared(Protocol):
    """What the connections of a worker have in common, as far as it is needed here."""

    @property
    def is_ending(self) -> bool: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def fixed_lines(self, config: Config) -> bytes:
        """Headers that every answer has."""
        ...

    def flush_later(self, exchange: Exchange) -> None:
        """Call `flush` at the end of the loop's turn."""
        ...


class Connection(Protocol):
    """What carries an exchange."""

    config: Config
    context: WorkerContext
    task_group: TaskGroup
    transport: Any
    """What is written to; None as long as hypercorn's stream is."""
    logs: bool

    @property
    def shared(self) -> Shared: ...
    @property
    def may_defer(self) -> bool:
        """Whether what is small may wait for the end of the loop's turn, to be written together with others."""
        ...

    def put(self, data: bytes) -> None:
        """Write to the transport, without waiting."""
        ...

    def write(self, data: bytes) -> Awaitable[None] | None:
        """Write a part of the answer; what is returned is to be awaited."""
        ...

    def read_on(self) -> None:
        """The application took what there was of a body."""
        ...

    def done(self, exchange: Exchange) -> None:
        """The answer is whole."""
        ...


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d \r\n" % status  # no reason, as hypercorn's own


class Exchange:
    """One request and its answer: ASGI's `receive` and `send`."""

    _began = 0.0
    _is_read = False
    _is_begun = False
    _waiters: Sequence[asyncio.Future[None]] = ()
    _has_left = False
    _on_leave: Callable[[], None] | None = None
    _is_dropped = False
    _head = b""
    _headers: Sequence[tuple[bytes, bytes]] = ()
    _status = 0
    _bodiless = False
    _is_chunked = False
    _left: int | None = None
    size = 0
    """Bytes of the body that the application has not asked for yet."""
    is_complete = False
    is_started = False
    is_ended = False
    keeps = True
    """Whether the connection goes on after the answer, as far as is known."""

    def __init__(self, connection: Connection, scope: Message, *, expects: bool) -> None:
        self._connection = connection
        self.scope = scope
        self._expects = expects
        self._chunks: list[bytes] = []
        self._parts = b""  # of the body, which wait for the end of the turn; nothing does beside a head
        if connection.logs:
            self._began = time.time()

    # --- the request --------------------------------------------------------------------------------------------

    def feed(self, body: bytes) -> None:
        """A part of the body arrived."""
        self._chunks.append(body)
        self.size += len(body)
        if self._waiters:
            self._wake()

    def complete(self) -> None:
        """The body has arrived whole."""
        self.is_complete = True
        if self._waiters:
            self._wake()

    def leave(self) -> None:
        """The client has gone."""
        self._has_left = True
        self._wake()
        if self._on_leave is not None:
            self._on_leave()

    def call_when_left(self, callback: Callable[[], None]) -> None:
        """Call this when the client has gone: without a task that waits for it in `receive` (`edge/request`)."""
        self._on_leave = callback
        if self._has_left:
            callback()

    def drop(self) -> None:
        """Take nothing more of the answer: the connection is closed from our side."""
        self._is_dropped = True
        self.leave()

    async def receive(self) -> Message:
        """ASGI's receive: the body in parts, then the end of the client."""
        while True:
            if self._chunks or (self.is_complete and not self._is_read):
                self._is_begun = True
                chunks, self._chunks = self._chunks, []
                is_high, self.size = self.size > HIGH_WATER, 0
                if is_high:
                    self._connection.read_on()
                self._is_read = self.is_complete
                body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                return {"type": "http.request", "body": body, "more_body": not self._is_read}
            if self._has_left or self.is_ended:
                return {"type": "http.disconnect"}
            if self._expects:
                self._expects = False
                if not self.is_started:
                    await _written(self._connection.write(_CONTINUE))
                    continue
            waiter = self._connection.shared.loop.create_future()
            self._waiters = [*self._waiters, waiter]
            await waiter

    def whole_body(self) -> bytes | None:
        """The whole body, where it is here and nothing of it was taken: without the way of ASGI's messages."""
        if not self.is_complete or self._is_read or self._is_begun:
            return None
        self._is_read = True
        chunks, self._chunks = self._chunks, []
        is_high, self.size = self.size > HIGH_WATER, 0
        if is_high:
            self._connection.read_on()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    @property
    def logs(self) -> bool:
        """Whether the request is logged when it is over."""
        return self._connection.logs

    @property
    def is_unsent(self) -> bool:
        """Whether nothing of the answer has been written."""
        return not self.is_started or bool(self._head)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- the answer ---------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """ASGI's send. Raises RuntimeError for what ASGI does not allow.

        A client that has gone is not told apart from one that only ended its own side and yet reads: hypercorn
        writes, and is silent if that fails.
        """
        if self._is_dropped:
            return
        kind = message["type"]
        if kind == "http.response.body" and self.is_started and not self.is_ended:
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.start" and not self.is_started:
            self._start(int(message["status"]), message.get("headers", ()))
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Awaitable[None] | None:
        """Send a whole answer, as two messages of ASGI would; what is returned is to be awaited. Raises RuntimeError.

        Where nothing has to be waited for, which is nearly always, the answer is out, or will be at the end of the
        loop's turn.
        """
        connection = self._connection
        if self._is_dropped or self.is_started or connection.logs or len(body) > _AT_ONCE:
            return self._answer(status, headers, body)
        self._start(status, headers)
        if connection.transport is None or self._is_chunked:
            return self._send_body(body, more=False)
        self._head += self._counted(body)
        waiting = None
        if not connection.may_defer:
            data, self._head = self._head, b""
            waiting = connection.write(data)
        if waiting is not None:  # nothing else is begun on the connection while its client does not read
            return self._end_after(waiting)
        self._end()
        connection.done(self)
        return None

    async def _end_after(self, waiting: Awaitable[None]) -> None:
        await waiting
        self._end()
        self._connection.done(self)

    async def _answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Make the head; it goes out with the first part of the body, or at the end of the loop's turn."""
        if status < 200:
            raise RuntimeError("an answer has a status of 200 or more")
        connection = self._connection
        pairs = headers if type(headers) is list else list(headers)
        named = dict(pairs)
        is_usual = named.keys() <= _USUAL
        if not is_usual and not b"".join(named).islower():
            pairs = [(bytes(name).lower(), bytes(value)) for name, value in pairs]
            named = dict(pairs)
        self._headers = pairs
        if not is_usual and not _FRAMING.isdisjoint(named):
            closes = named.get(b"connection", b"").lower() == b"close"
            self.keeps = self.keeps and not closes
            pairs = [pair for pair in pairs if pair[0] not in _FRAMING or (pair[0] == b"connection" and not closes)]
        lines = b"\r\n".join([*map(b": ".join, pairs), b""])
        if len(lines) - len(lines.translate(None, _BREAKS)) != 2 * len(pairs):
            raise RuntimeError("a header of the answer holds a line break")
        left = named.get(b"content-length")
        scope = self.scope
        self._bodiless = status in _WITHOUT_BODY or scope["method"] == "HEAD"
        if left is not None:
            self._left = int(left)
        elif status not in _WITHOUT_BODY:
            if scope["http_version"] == "1.1":
                self._is_chunked = not self._bodiless
                lines += b"transfer-encoding: chunked\r\n"
            else:
                self.keeps = False
        shared, close = connection.shared, b""
        if not self.keeps or shared.is_ending:
            self.keeps, close = False, b"connection: close\r\n"
        fixed = shared.fixed_lines(connection.config)
        self._head = b"".join((_status_line(status), lines, fixed, close, b"\r\n"))
        self._status = status
        self.is_started = True
        shared.flush_later(self)

    def flush(self) -> None:
        """Write what waits for the end of the loop's turn: a head, parts of a body, or a whole answer."""
        if self._is_dropped:
            self._head = self._parts = b""
        if self._head and self._connection.transport is None:
            self._connection.task_group.spawn(self._flush)
        elif data := self._head or self._parts:
            self._head = self._parts = b""
            self._connection.put(data)

    def forget(self) -> None:
        """Write nothing of what waits: another answer takes its place."""
        self._head = self._parts = b""

    async def _flush(self) -> None:
        data, self._head = self._head, b""
        if data and not self._is_dropped:
            await _written(self._connection.write(data))

    def _counted(self, body: bytes) -> bytes:
        """A part of the body, as far as the answer has one. Raises RuntimeError for more than was declared."""
        if self._bodiless:
            return b""
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("the body of the answer is longer than its Content-Length")
        return body

    def _end(self) -> None:
        """The answer is whole."""
        self.is_ended = True
        self._on_leave = None
        if self._waiters:
            self._wake()
        if self._left and not self._bodiless:
            self.keeps = False  # shorter than it said: the end of the connection shows it

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        body = self._counted(body)
        if self._is_chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        waits = self._head or self._parts
        if self._connection.may_defer and len(waits) + len(body) <= _AT_ONCE:
            if self._head:
                self._head += body
            elif body:
                if not waits:
                    self._connection.shared.flush_later(self)
                self._parts += body
        elif waits or body:
            data, self._head, self._parts = waits, b"", b""
            if not data:
                data = bytes(body)
            elif len(body) <= _AT_ONCE:
                data += body
            else:  # which would be copied
                await _written(self._connection.write(data))
                data = bytes(body)
            waiting = self._connection.write(data)
            if waiting is not None:
                await waiting
        if more:
            return
        self._end()
        if self._connection.logs:
            await self.log(self._status, self._headers)
        self._connection.done(self)

    async def log(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """A line of hypercorn's access log."""
        logger: Any = self._connection.config.log
        await logger.access(self.scope, {"status": status, "headers": headers}, time.time() - self._began)


async def _written(waiting: Awaitable[None] | None) -> None:
    if waiting is not None:
        await waiting
