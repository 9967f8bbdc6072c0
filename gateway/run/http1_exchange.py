"""One request under hypercorn and its answer, as ASGI's `receive` and `send`: bodies in and out, answers framed.

Knows ASGI and the writing side of HTTP/1.1; what arrives, and when a connection goes on, is the connection's (`http1`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from hypercorn.config import Config
from hypercorn.events import Event, RawData
from hypercorn.logging import Logger
from hypercorn.typing import TaskGroup, WorkerContext

HIGH_WATER = 256 << 10
"""Bytes of a body that the application has not asked for yet; with more the connection reads nothing."""

_CONTINUE = b"HTTP/1.1 100 \r\n\r\n"
_WITHOUT_BODY = frozenset({204, 304})

Message = dict[str, Any]


class Shared(Protocol):
    """What the connections of a worker have in common, as far as it is needed here."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def fixed_lines(self, config: Config) -> list[bytes]:
        """Headers that every answer has."""
        ...


class Connection(Protocol):
    """What carries an exchange."""

    config: Config
    context: WorkerContext
    task_group: TaskGroup
    send: Callable[[Event], Awaitable[None]]

    @property
    def shared(self) -> Shared: ...

    def read_on(self) -> None:
        """The application took what there was of a body."""
        ...

    async def done(self, exchange: Exchange) -> None:
        """The answer is whole."""
        ...


class Exchange:
    """One request and its answer: ASGI's `receive` and `send`."""

    __slots__ = (
        "_began",
        "_bodiless",
        "_chunks",
        "_connection",
        "_expects",
        "_has_left",
        "_head",
        "_headers",
        "_is_chunked",
        "_is_dropped",
        "_is_read",
        "_left",
        "_status",
        "_waiters",
        "is_complete",
        "is_ended",
        "is_started",
        "keeps",
        "scope",
        "size",
    )

    def __init__(self, connection: Connection, scope: Message, *, expects: bool) -> None:
        self._connection = connection
        self.scope = scope
        self._expects = expects
        self._began = time.time()
        self._chunks: list[bytes] = []
        self.size = 0
        """Bytes of the body that the application has not asked for yet."""
        self.is_complete = False
        self._is_read = False
        self._waiters: Sequence[asyncio.Future[None]] = ()
        self._has_left = False
        self._is_dropped = False
        self.keeps = True
        """Whether the connection goes on after the answer, as far as is known."""
        self._head = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._status = 0
        self._bodiless = False
        self._is_chunked = False
        self._left: int | None = None
        self.is_started = False
        self.is_ended = False

    # --- the request --------------------------------------------------------------------------------------------

    def feed(self, body: bytes) -> None:
        """A part of the body arrived."""
        self._chunks.append(body)
        self.size += len(body)
        self._wake()

    def complete(self) -> None:
        """The body has arrived whole."""
        self.is_complete = True
        self._wake()

    def leave(self) -> None:
        """The client has gone."""
        self._has_left = True
        self._wake()

    def drop(self) -> None:
        """Take nothing more of the answer: the connection is closed from our side."""
        self._is_dropped = True
        self.leave()

    async def receive(self) -> Message:
        """ASGI's receive: the body in parts, then the end of the client."""
        while True:
            if self._chunks or (self.is_complete and not self._is_read):
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
                    await self._connection.send(RawData(_CONTINUE))
                    continue
            waiter = self._connection.shared.loop.create_future()
            self._waiters = [*self._waiters, waiter]
            await waiter

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

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Make the head; it goes out with the first part of the body, or at the end of the loop's turn."""
        if status < 200:
            raise RuntimeError("an answer has a status of 200 or more")
        self._bodiless = self.scope["method"] == "HEAD" or status in _WITHOUT_BODY
        lines = [status_line(status)]
        self._headers = list(headers)
        for each, value in self._headers:
            name = bytes(each).lower()
            if name == b"content-length":
                self._left = int(value)
            elif name == b"transfer-encoding":
                continue
            elif name == b"connection" and value.lower() == b"close":
                self.keeps = False
                continue
            lines.append(b"%b: %b" % (name, value))
        if self._left is None and status not in _WITHOUT_BODY:
            if self.scope["http_version"] == "1.1":
                self._is_chunked = not self._bodiless
                lines.append(b"transfer-encoding: chunked")
            else:
                self.keeps = False
        connection = self._connection
        lines += connection.shared.fixed_lines(connection.config)
        if not self.keeps or connection.context.terminated.is_set():
            self.keeps = False
            lines.append(b"connection: close")
        head = b"\r\n".join(lines)
        if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1 or b"\0" in head:
            raise RuntimeError("a header of the answer holds a line break")
        self._head = head + b"\r\n\r\n"
        self._status = status
        self.is_started = True
        connection.shared.loop.call_soon(self._flush_later)

    def _flush_later(self) -> None:
        if self._head:
            self._connection.task_group.spawn(self._flush)

    async def _flush(self) -> None:
        head, self._head = self._head, b""
        if head:
            await self._connection.send(RawData(head))

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        if self._bodiless:
            body = b""
        elif self._is_chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("the body of the answer is longer than its Content-Length")
        head, self._head = self._head, b""
        if head or body:
            await self._connection.send(RawData(head + body if head else bytes(body)))
        if more:
            return
        self.is_ended = True
        self._wake()
        if self._left and not self._bodiless:
            self.keeps = False  # shorter than it said: the end of the connection shows it
        await self.log(self._status, self._headers)
        await self._connection.done(self)

    async def log(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """A line of hypercorn's access log, if there is one."""
        logger: Any = self._connection.config.log
        if logger.access_logger is not None or type(logger) is not Logger:
            await logger.access(self.scope, {"status": status, "headers": headers}, time.time() - self._began)


def status_line(status: int) -> bytes:
    """The first line of an answer."""
    return b"HTTP/1.1 %d " % status  # without a reason, as hypercorn's own
