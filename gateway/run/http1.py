"""Hypercorn's HTTP/1.1 on httptools (llhttp) instead of h11: a fifth of the time per request.

The seam is one name: `hypercorn.protocol.H11Protocol` is looked up for each connection, made with nine arguments, and
then driven by `initiate()` and `handle(RawData | Closed)`; it writes by `send(RawData | Closed | Updated)`. `install`
puts a class of that shape in its place, if hypercorn is a version that the tests know; else the stock one stays.
Everything else is hypercorn's: sockets, TLS, workers, lifespan, HTTP/2, the log. What begins as HTTP/2, and upgrades
(h2c, WebSocket), is handed to the stock class with the very bytes that came. `docs/http1.rst` has the whole story.

With the first request this becomes the protocol of the connection's transport (`_take_over`): bytes come straight from
it and go straight to it, where hypercorn has a stream, two tasks and a lock between. The end of the connection is told
to hypercorn's stream as before, so that its server ends too; who is handed a connection gets its stream back first.

A connection is *idle* (no request), *reading* (a head has begun), or *busy* (a request is at the application). One
request is at the application at a time; what a client sends ahead of its answer waits parsed in line, and no more is
read meanwhile. A request is carried out by the task that did the last one, if that is free, else by a new one. Its
answer's head is kept until the first part of the body, so that a whole answer is one write; a head without a body yet
is written at the end of the loop's turn. So is what is small where several requests are under way (a whole answer, or
parts of a stream, which become one), together with that of others: a write wakes who reads, and of several in a row
only the first does.

A connection goes on after an answer if both sides want that, the request was read whole and the answer is whole.
Otherwise it is closed: an answer that failed in the middle must not look whole, and bytes that belong to nobody must
not be taken for a request. All that could be read in two ways is refused with 400: two lengths, a length beside
chunks, any other transfer coding, no Host or two of them, line breaks of another kind, folded headers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import Any, ClassVar
from urllib.parse import unquote

import httptools
import hypercorn.protocol
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import MAX_RECV
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.logging import Logger
from hypercorn.protocol.events import Request as StreamRequest
from hypercorn.protocol.h11 import H11Protocol as StockProtocol
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup, WorkerContext
from hypercorn.utils import valid_server_name

from gateway.deadlines import Alarms
from gateway.run.http1_exchange import HIGH_WATER, Exchange, Message

KNOWN_VERSIONS = frozenset({"0.18.0"})
"""The hypercorn versions whose own tests of HTTP/1.1 pass on this."""

_SEAM = "H11Protocol"
_HEAD_SECONDS = 15.0  # for a connection's first head, and for each that has begun
_SLICE = 8 << 10  # bytes that are parsed before the requests in them are answered
_SEVERAL = 2  # requests at the application, of which some may be answered in one turn of the loop
_LINGER_SECONDS = 0.5
_LINGER_BYTES = 4 << 20
_MAX_HEADERS = 256
_MAX_TARGET = 16 << 10
_ASGI = {"spec_version": "2.1", "version": "3.0"}
_COMMON = (
    b"Accept", b"Accept-Encoding", b"Accept-Language", b"Authorization", b"Cache-Control", b"Connection",
    b"Content-Length", b"Content-Type", b"Cookie", b"Host", b"Last-Event-ID", b"MCP-Protocol-Version", b"Mcp-Method",
    b"Mcp-Name", b"Mcp-Session-Id", b"Origin", b"Sec-Fetch-Dest", b"Sec-Fetch-Mode", b"Sec-Fetch-Site", b"Traceparent",
    b"User-Agent", b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"X-Real-IP", b"X-Request-ID",
)  # fmt: skip
_NAMES = {spelled: name.lower() for name in _COMMON for spelled in (name, name.lower())}
"""Names of headers in lower case: a stream keeps its request's as long as it is open, and these only once."""
_PREFACE = b"PRI * HTTP/2.0"
_STOCK_SPEAKS = (b"h2c", b"websocket")

log = logging.getLogger("gateway.http1")


def install(choice: str, max_connections: int = 10_000) -> bool:
    """Put this in place of hypercorn's HTTP/1.1, or put that back (`h11`); say whether this is in place.

    Of more connections than `max_connections` an idle one is closed for each new one, or else the new one.
    """
    if choice == "httptools" and version("hypercorn") in KNOWN_VERSIONS:
        shared = _Shared(max_connections)
        made: Any = type("HttptoolsProtocol", (Http1Protocol,), {"__slots__": (), "shared": shared})
        setattr(hypercorn.protocol, _SEAM, made)
        return True
    if choice == "httptools":
        log.warning("hypercorn %s is not known here: its own HTTP/1.1 is used (GATEWAY_HTTP1)", version("hypercorn"))
    setattr(hypercorn.protocol, _SEAM, StockProtocol)
    return False


class _Shared:
    """What the connections of a worker share: the timer of idle ones, and that the server is on its way out."""

    alarms: Alarms
    """Made with the first connection, where the loop runs."""

    def __init__(self, max_connections: int) -> None:
        self.open: dict[Http1Protocol, None] = {}
        """The connections, the oldest first."""
        self._max_connections = max_connections
        self.busy = 0
        """Requests at the application."""
        self.is_ending = False
        """Whether the server ends: each connection closes after its answer."""
        self._watching: asyncio.Task[None] | None = None
        self._second = 0
        self._for_apps: tuple[Any, ...] | None = None
        self._fixed = b""
        self._unsent: list[Exchange] = []

    @property
    def for_apps(self) -> tuple[Any, ...]:
        """What hypercorn's wrappers of applications take beside ASGI's three."""
        if self._for_apps is None:
            loop = self.alarms.loop
            self._for_apps = (partial(loop.run_in_executor, None), partial(_call_soon, loop))
        return self._for_apps

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self.alarms.loop

    def fixed_lines(self, config: Config) -> bytes:
        """Hypercorn's own headers (the date, the server's name), made once a second."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._fixed = b"".join(b"%b: %b\r\n" % pair for pair in config.response_headers("h11"))
        return self._fixed

    def plain(self, status: int, config: Config) -> RawData:
        """A whole answer without a body, after which the connection is closed."""
        lines = b"content-length: 0\r\n%bconnection: close\r\n" % self.fixed_lines(config)
        return RawData(b"HTTP/1.1 %d \r\n%b\r\n" % (status, lines))

    def flush_later(self, exchange: Exchange) -> None:
        """Have an answer, or its beginning, written at the end of the loop's turn."""
        self._unsent.append(exchange)
        if len(self._unsent) == 1:
            self.alarms.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits for the end of the turn; before what is not to come ahead of it."""
        unsent, self._unsent = self._unsent, []
        for exchange in unsent:
            with suppress(RuntimeError, OSError):  # of one that nobody can read any more; others are to be written
                exchange.flush()

    def watch(self, context: WorkerContext) -> None:
        """Close idle connections when the server ends."""
        if self._watching is None or self._watching.done():
            self.alarms = Alarms()
            self._watching = asyncio.get_running_loop().create_task(self._watch(context))

    def begin(self, connection: Http1Protocol) -> bool:
        """Count a new connection; where there are too many one that is idle makes room, else it may not be."""
        if len(self.open) >= self._max_connections:
            idle = next((each for each in self.open if each.is_idle), None)
            if idle is None:
                return False
            del self.open[idle]
            idle.ring()
        self.open[connection] = None
        connection.at = self.alarms.loop.time() + min(_HEAD_SECONDS, connection.config.keep_alive_timeout)
        self.alarms.add(connection)
        return True

    async def _watch(self, context: WorkerContext) -> None:
        await context.terminated.wait()
        self.is_ending = True
        for connection in list(self.open):
            connection.end_if_idle()


class _BadRequest(Exception):
    """What came is no request that can be answered otherwise."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Http1Protocol:
    """One connection, in place of hypercorn's `H11Protocol`."""

    __slots__ = (
        "_asgi",
        "_backlog",
        "_busy",
        "_drainers",
        "_fed",
        "_first",
        "_free",
        "_hands_over",
        "_has_stock_timer",
        "_headers",
        "_in_head",
        "_is_closed",
        "_is_feeding",
        "_is_paused",
        "_keeps_case",
        "_line",
        "_lingers",
        "_parser",
        "_pause",
        "_raw",
        "_reading",
        "_refused",
        "_requests",
        "_root_path",
        "_stock",
        "_stream",
        "_url",
        "app",
        "at",
        "client",
        "config",
        "connection_state",
        "context",
        "logs",
        "send",
        "server",
        "ssl",
        "task_group",
        "transport",
    )  # fmt: skip

    shared: ClassVar[_Shared]

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        task_group: TaskGroup,
        connection_state: ConnectionState,
        ssl: bool,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        self.app = app
        self.config = config
        self.context = context
        self.task_group = task_group
        self.connection_state = connection_state
        self.ssl = ssl
        self.client = client
        self.server = server
        self.send = send
        self.at = 0.0
        """When this connection was idle for too long, or its head took too long (`deadlines.Alarm`)."""
        logger: Any = config.log
        self.logs = logger.access_logger is not None or type(logger) is not Logger
        """Whether each request has a line in hypercorn's access log."""
        self.transport: Any = None
        """What is written to, once this is its protocol."""
        self._asgi: Any = app.app if type(app) is ASGIWrapper else None  # one call less than by the wrapper
        self._stock: StockProtocol | None = None
        self._stream: Any = None
        self._root_path: str = config.root_path
        self._keeps_case: bool = config.h11_pass_raw_headers
        self._is_paused = False
        self._drainers: list[asyncio.Future[None]] = []
        self._parser = httptools.HttpRequestParser(self)
        self._requests = 0
        self._busy: Exchange | None = None
        self._line: list[Exchange] = []
        self._reading: Exchange | None = None
        self._free: asyncio.Future[Exchange | None] | None = None  # of a task that waits for the next request
        self._backlog = b""  # what arrived and is not parsed yet
        self._is_feeding = False
        self._pause: asyncio.Future[None] | None = None
        self._is_closed = False
        self._lingers = False
        self._has_stock_timer = True
        self._first: bytes | None = b""  # the first bytes of the connection, until it is clear that they are HTTP/1.1
        self._raw: bytes | None = None  # what came of a head, if that began the read: an upgrade is handed on whole
        self._hands_over = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._fed = 0  # bytes that were read since the read in which the head began
        self._in_head = False
        self._refused: _BadRequest | None = None

    async def initiate(self) -> None:
        """Begin; the first request has a deadline (hypercorn's own timer is longer)."""
        self.shared.watch(self.context)
        if not self.shared.begin(self):
            log.warning("a connection was closed: there are too many (GATEWAY_MAX_CONNECTIONS)")
            await self._close()

    async def handle(self, event: Event) -> None:
        """Take what arrived, or the end of the connection."""
        if self._stock is not None:
            await self._stock.handle(event)
        elif isinstance(event, RawData):
            data = event.data
            if self._is_closed:
                await self._ignore(data)
            elif data:
                if self._first is not None:
                    data = self._first + data
                    if _PREFACE.startswith(data[: len(_PREFACE)]):
                        self._first = self._raw = data
                        if len(data) >= len(_PREFACE):
                            await self._hand_over()
                        return
                    self._first = None
                    self._take_over(len(data))
                self._backlog += data
                await self._feed()
        elif isinstance(event, Closed):
            self._lost()

    # --- the transport ------------------------------------------------------------------------------------------

    def _take_over(self, size: int) -> None:
        """Become the transport's protocol, if all that it has read so far is here."""
        writer = getattr(getattr(self.send, "__self__", None), "writer", None)
        transport = getattr(writer, "transport", None)
        if transport is not None and size < MAX_RECV and self.config.read_timeout is None:
            self._stream = transport.get_protocol()
            self.transport = transport
            transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """The transport's: take what arrived, and go on in a task only if something has to be waited for."""
        if self._is_closed:
            self.task_group.spawn(self._ignore, data)
        elif self._is_feeding or len(data) > _SLICE:
            self._backlog += data
            self._feed_later()
        else:
            self._take(data)
            if self._has_to_wait():
                self._feed_later()

    def eof_received(self) -> bool | None:
        """The transport's: hypercorn's stream ends, and its server says so (`handle`)."""
        ends: bool | None = self._stream.eof_received()
        return ends

    def connection_lost(self, error: Exception | None) -> None:
        """The transport's: the same."""
        self._lost()
        self._stream.connection_lost(error)

    def pause_writing(self) -> None:
        """The transport's: the client does not read as fast as we write."""
        self._is_paused = True
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        """The transport's: it does again."""
        self._is_paused = False
        self._wake_drainers()
        self._stream.resume_writing()

    def _wake_drainers(self) -> None:
        for waiter in self._drainers:
            if not waiter.done():
                waiter.set_result(None)

    async def _drain(self) -> None:
        """Wait until the client reads, or has gone."""
        while self._is_paused and not self._is_closed:
            waiter = self.shared.loop.create_future()
            self._drainers.append(waiter)
            try:
                await waiter
            finally:
                self._drainers.remove(waiter)

    @property
    def may_defer(self) -> bool:
        """Whether what is small may wait for the end of the loop's turn, to be written together with others."""
        return self.shared.busy >= _SEVERAL and self.transport is not None and not self._is_paused

    def put(self, data: bytes) -> None:
        """Write to the transport; what nobody can read any more is dropped in silence, as hypercorn does."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def write(self, data: bytes) -> Awaitable[None] | None:
        """Write a part of an answer; what is returned is to be awaited, since the client does not read as fast."""
        if self.transport is None:
            return self.send(RawData(data))
        self.put(data)
        return self._drain() if self._is_paused else None

    # --- what arrives -------------------------------------------------------------------------------------------

    def _feed_later(self) -> None:
        if not self._is_feeding:
            self._is_feeding = True
            self.transport.pause_reading()
            self.task_group.spawn(self._feed)

    async def _feed(self) -> None:
        """Parse what arrived, a part at a time: what is sent ahead becomes many requests."""
        self._is_feeding = True
        try:
            while True:
                if self._hands_over:
                    await self._hand_over()
                    return
                if self._refused is not None:
                    await self._refuse(self._refused)
                    return
                while self._has_to_wait() and not self._is_closed:
                    await self._rest_until_told()
                if self._is_closed or not self._backlog:
                    return
                part, self._backlog = self._backlog[:_SLICE], self._backlog[_SLICE:]
                self._take(part)
        finally:
            self._is_feeding = False
            if self.transport is not None and not self.transport.is_closing():
                self.transport.resume_reading()

    def _has_to_wait(self) -> bool:
        """Whether nothing more may be parsed now."""
        busy = self._busy
        return bool(
            self._line or self._hands_over or self._refused is not None or (busy is not None and busy.size > HIGH_WATER)
        )

    def _take(self, data: bytes) -> None:
        """Parse one part, and begin the request that it completes."""
        was_in_head = self._in_head
        if was_in_head:
            self._raw = None if self._raw is None else self._raw + data
        else:
            self._raw = data if self._busy is None and self._reading is None else None
        self._fed += len(data)
        while data and not self._hands_over:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:  # to a protocol that nobody here speaks: HTTP goes on
                self._parser = httptools.HttpRequestParser(self)
                data = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                cause = error.__context__
                self._refused = cause if isinstance(cause, _BadRequest) else _BadRequest(400, str(error))
                return
        if self._in_head:
            if not was_in_head and self._busy is None:
                self._wait_for_head()
            if max(self._fed, self._size_of_head()) > self.config.h11_max_incomplete_size:
                self._refused = _BadRequest(431, "the head is too large")
                return
        if self._line and self._busy is None:
            self._begin_next()

    async def _ignore(self, data: bytes) -> None:
        """Take no notice of what a client sends after its last answer, for a moment."""
        self._fed += len(data)
        if self._lingers and self._fed > _LINGER_BYTES:
            await self._close()

    def _size_of_head(self) -> int:
        """Bytes of the target and the headers, as far as they are parsed."""
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    async def _rest_until_told(self) -> None:
        """Read nothing until `read_on`: hypercorn waits for `handle`."""
        self._pause = self.shared.alarms.loop.create_future()
        try:
            await self._pause
        finally:
            self._pause = None

    async def _refuse(self, refusal: _BadRequest) -> None:
        """Answer what can't be read, after the answers to what came before it, and close the connection."""
        if self._line and self._line[-1] is self._reading:  # its body can't be read: it is not begun
            self._line.pop()
        while (self._line or self._busy not in (None, self._reading)) and not self._is_closed:
            if self._busy is None:
                self._begin_next()
            await self._rest_until_told()
        if self._is_closed:
            return
        if self._busy is None or self._busy.is_unsent:
            log.info("refused a request: %s", refusal)
            if self._busy is not None:
                self._busy.forget()
            self.shared.flush()
            await self.send(self.shared.plain(refusal.status, self.config))
        self._linger()

    def _linger(self) -> None:
        """Write nothing more, and read on for a moment before the connection is closed.

        A close with bytes unread would reset the connection, and the answer with it.
        """
        self._lost()
        if self._busy is not None:
            self._busy.drop()
        self._lingers = True
        self.at = self.shared.alarms.loop.time() + _LINGER_SECONDS
        self.shared.alarms.add(self)

    async def _hand_over(self) -> None:
        """Let hypercorn's own code go on with this connection, from the first byte of this request."""
        data, self._raw, self._backlog = (self._raw or b"") + self._backlog, None, b""
        self._forget()
        self._stock = StockProtocol(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.connection_state,
            self.ssl,
            self.client,
            self.server,
            self.send,
        )
        await self._stock.initiate()
        transport, self.transport = self.transport, None
        if transport is None:
            await self._stock.handle(RawData(data))
            return
        transport.set_protocol(self._stream)
        server: Any = self.send.__self__  # type: ignore[attr-defined]  # a TCPServer's method, else there is no transport
        try:
            await server.protocol.handle(RawData(data))  # which may turn to HTTP/2
        finally:
            if not transport.is_closing():
                transport.resume_reading()

    def _forget(self) -> None:
        """There is nothing more to do on this connection: nothing is due, and no task waits for a request."""
        self.shared.open.pop(self, None)
        self.shared.alarms.discard(self)
        if self._free is not None and not self._free.done():
            self._free.set_result(None)

    def _lost(self) -> None:
        """The connection is gone: whoever works on a request is told."""
        self._is_closed = True
        self._forget()
        self._line.clear()
        self._wake_drainers()
        self.read_on()
        if self._busy is not None:
            self._busy.leave()

    async def _close(self) -> None:
        self._lost()
        if self._busy is not None:
            self._busy.drop()
        await self.send(Closed())

    # --- httptools ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._fed = 0
        self._in_head = True
        if self._busy is not None or self._line:
            self._raw = None  # it came behind another request: it can't be handed on

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer, which ASGI has no place for
            if not self._keeps_case:
                name = _NAMES.get(name) or name.lower()
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        http_version, method = parser.get_http_version(), parser.get_method()
        limit = self.config.h11_max_incomplete_size
        if (
            (self._fed > limit and self._size_of_head() > limit)
            or len(headers) > _MAX_HEADERS
            or len(self._url) > _MAX_TARGET
        ):
            raise _BadRequest(431, "the head is too large, or has too many headers")
        raw = headers
        if self._keeps_case:
            headers = [(name.lower(), value) for name, value in raw]
        named = dict(headers)
        if http_version != "1.1" and http_version != "1.0":
            raise _BadRequest(505, "an unknown version")
        if b"host" not in named and http_version == "1.1":
            raise _BadRequest(400, "one Host is needed")
        if len(named) != len(headers) and sum(name == b"host" for name, _ in headers) > 1:
            raise _BadRequest(400, "one Host is needed")
        if b"transfer-encoding" in named:
            codings = {value.lower() for name, value in headers if name == b"transfer-encoding"}
            if codings != {b"chunked"} or http_version != "1.1":
                raise _BadRequest(501 if http_version == "1.1" else 400, "an unknown transfer coding")
        expects = named.get(b"expect", b"").lower() == b"100-continue" and http_version == "1.1"
        self._in_head = False
        if b"upgrade" in named and named[b"upgrade"].strip().lower() in _STOCK_SPEAKS and self._raw is not None:
            self._hands_over = True
            return
        self._raw = None
        scope = self._scope(method.decode("ascii"), http_version, raw)
        exchange = Exchange(self, scope, expects=expects)
        exchange.keeps = parser.should_keep_alive() and http_version == "1.1" and method != b"CONNECT"
        self._reading = exchange
        self._line.append(exchange)

    def on_body(self, body: bytes) -> None:
        if self._reading is not None:
            self._reading.feed(body)

    def on_message_complete(self) -> None:
        self._in_head = False
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.complete()

    def _scope(self, method: str, http_version: str, headers: list[tuple[bytes, bytes]]) -> Message:
        target = self._url
        if not target.startswith(b"/") and (at := target.find(b"://")) > 0:  # the form for proxies (RFC 9112, 3.2.2)
            target = b"/" + target[at + 3 :].partition(b"/")[2]
        raw_path, _, query = target.partition(b"?")
        try:
            path = raw_path.decode("ascii")
        except UnicodeDecodeError:
            raise _BadRequest(400, "the target is not ASCII") from None
        return {
            "type": "http",
            "http_version": http_version,
            "asgi": _ASGI,
            "method": method,
            "scheme": "https" if self.ssl else "http",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": self._root_path,
            "headers": headers,
            "client": self.client,
            "server": self.server,
            "state": self.connection_state.copy(),
            "extensions": {},
        }

    # --- one request after the other ----------------------------------------------------------------------------

    def _begin_next(self) -> None:
        """Let the application have the next request in line."""
        exchange = self._busy = self._line.pop(0)
        self._requests += 1
        if self._has_stock_timer:
            self._has_stock_timer = False
            self.task_group.spawn(self.send, Updated(idle=False))
        self.shared.alarms.all.discard(self)
        if self.context.max_requests is not None:  # type: ignore[attr-defined]  # its protocol leaves that out
            self.task_group.spawn(self.context.mark_request)
        if self._requests >= self.config.keep_alive_max_requests:
            exchange.keeps = False
        if self.config.server_names and not self._is_served(exchange.scope):
            self.task_group.spawn(self._refuse_name)
            return
        free, self._free = self._free, None
        if free is not None and not free.done():
            free.set_result(exchange)
        else:
            self.task_group.spawn(self._work, exchange)

    async def _refuse_name(self) -> None:
        self.shared.flush()
        await self.send(self.shared.plain(404, self.config))
        await self._close()

    def _is_served(self, scope: Message) -> bool:
        """Whether the host is one that hypercorn is configured for."""
        return valid_server_name(
            self.config, StreamRequest(1, scope["headers"], "1.1", scope["method"], b"/", self.connection_state)
        )

    async def _work(self, exchange: Exchange) -> None:
        """Have one request after the other answered by the application, as long as no other task is free for that."""
        app: Any = self.app
        next: Exchange | None = exchange
        while next is not None:
            exchange = next
            self.shared.busy += 1
            try:
                if self._asgi is not None:
                    await self._asgi(exchange.scope, exchange.receive, exchange.send)
                else:
                    await app(exchange.scope, exchange.receive, exchange.send, *self.shared.for_apps)
            except asyncio.CancelledError:
                raise
            except Exception:
                await self.config.log.exception("Error in ASGI Framework")
            finally:
                self.shared.busy -= 1
                if not exchange.is_ended:
                    await self._broken_off(exchange)
            if self._is_closed or self._stock is not None or self._free is not None:
                return
            waiter = self._free = self.shared.alarms.loop.create_future()
            next = await waiter

    async def _broken_off(self, exchange: Exchange) -> None:
        """The application ended without a whole answer."""
        if self._is_closed or exchange is not self._busy:
            return
        if exchange.is_unsent:
            exchange.forget()
            self.shared.flush()
            await self.send(self.shared.plain(500, self.config))
            if self.logs:
                await exchange.log(500, [])
        else:
            exchange.flush()
        await self._close()

    def done(self, exchange: Exchange) -> None:
        """An answer is whole: go on with the connection, or close it."""
        if exchange is not self._busy or self._is_closed:
            return
        self._busy = None
        if not exchange.is_complete:  # what the client still sends is not read
            self._linger()
        elif not exchange.keeps or self.shared.is_ending:
            self._is_closed = True
            self.task_group.spawn(self._close)
        elif self._line:
            self._begin_next()
        else:
            self._wait_for_head()
        if self._pause is not None:
            self.read_on()

    def _wait_for_head(self) -> None:
        """Be idle, for as long as hypercorn's keep-alive says; a head that has begun has less time."""
        if self._has_stock_timer:
            return
        seconds = self.config.keep_alive_timeout
        alarms = self.shared.alarms
        self.at = at = alarms.loop.time() + (min(_HEAD_SECONDS, seconds) if self._in_head else seconds)
        alarms.all.add(self)
        if at < alarms.next:
            alarms.arm(at)

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses the connection."""
        return self._busy is None and not self._in_head and not self._is_closed

    def end_if_idle(self) -> None:
        """The server ends: so does a connection that nobody uses."""
        if self.is_idle:
            self.ring()

    def ring(self) -> None:
        """Idle for too long, or a head that does not end, or refused a moment ago: close the connection."""
        if self._lingers:
            self.task_group.spawn(self._close)
        elif self._busy is None and not self._is_closed:
            self.task_group.spawn(self._late if self._in_head else self._close)

    async def _late(self) -> None:
        await self.send(self.shared.plain(408, self.config))
        await self._close()

    def read_on(self) -> None:
        """The application took what there was of a body, or a request is over."""
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)


def _call_soon(loop: asyncio.AbstractEventLoop, func: Callable[..., Any], *args: Any) -> Any:
    """Run a coroutine function from another thread, and wait for it (for WSGI applications)."""
    return asyncio.run_coroutine_threadsafe(func(*args), loop).result()
