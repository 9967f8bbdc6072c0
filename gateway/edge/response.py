"""What goes back to a client: whole answers, JSON or an event stream decided late, streams that stay, refusals.

Knows ASGI messages, disconnects and keep-alives; nothing of MCP's methods.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any

from starlette.types import Message as AsgiMessage

from gateway.access.limits import key_ended
from gateway.deadlines import Scope
from gateway.edge.request import Accepts, Http, Protocol
from gateway.errors import ClientLeft, GatewayError
from gateway.observability.logs import FIELDS
from gateway.protocol.messages import Failure, Id, Notification, Request, dump, encode
from gateway.protocol.sse import KEEP_ALIVE, encode_event
from gateway.stores.event_log import Recording
from gateway.tasks import end

_PIECE = 256 << 10
_WATCH_AFTER_SECONDS = 0.02
_HUNG_UP = object()  # a reason to cut a request's work
_JSON, _STREAM = Accepts.JSON, Accepts.STREAM  # by a name of their own: a member's takes four times as long
RETRY_MS = 500
"""How long a client should wait before it takes up a stream that was cut."""

_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)

refusals = logging.getLogger("gateway.refusals")

RawHeaders = list[tuple[bytes, bytes]]


def send_bytes(
    http: Http,
    status: int,
    body: bytes,
    content_type: bytes = b"application/json",
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> Awaitable[None]:
    """Send a whole answer."""
    fixed = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
    return http.send_whole(status, fixed, body) if len(body) <= _PIECE else _send_pieces(http, status, fixed, body)


async def _send_pieces(http: Http, status: int, fixed: RawHeaders, body: bytes) -> None:
    await http.send({"type": "http.response.start", "status": status, "headers": fixed})
    last = (len(body) - 1) // _PIECE * _PIECE  # in pieces, so that a client that stops reading holds no more
    for at in range(0, last, _PIECE):
        await http.send({"type": "http.response.body", "body": body[at : at + _PIECE], "more_body": True})
    await http.send({"type": "http.response.body", "body": body[last:]})


async def send_json(http: Http, value: Any, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a JSON document."""
    await send_bytes(http, status, dump(value), headers=headers)


async def send_empty(http: Http, status: int, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a status without a body."""
    length = [] if status == 204 else [(b"content-length", b"0")]
    await http.send_whole(status, [*length, *headers], b"")


def problem(error: GatewayError) -> dict[str, Any]:
    """The problem document of an error (RFC 9457)."""
    slug = re.sub(r"[^a-z0-9]+", "-", error.title.lower()).strip("-")
    return {
        "type": f"urn:mcp-gateway:problem:{slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        **error.facts,
    }


def log_refusal(http: Http, error: GatewayError) -> None:
    """One line for a request that was refused before it became a call; nothing of what it carried.

    Clients look for OAuth's documents at up to eight addresses before each good connect: that is no refusal to read of.
    """
    path = http.path
    if not error.logged:
        fields = {
            "http_method": http.method,
            "path": path[:200],
            "status": error.status,
            "outcome": error.title,
            "request_id": http.request_id,
        }
        refusals.log(logging.DEBUG if "/.well-known/" in path else logging.INFO, "refused", extra={FIELDS: fields})


async def send_problem(http: Http, error: GatewayError, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer a REST request with an error."""
    body = dump(problem(error))
    await send_bytes(http, error.status, body, b"application/problem+json", [*raw(error.headers), *headers])


async def send_failure(
    http: Http, error: GatewayError, status: int | None = None, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answer a JSON-RPC request that could not be dispatched."""
    body = encode(Failure(error.id, error.code, error.rpc_detail, error.data))
    await send_bytes(http, status or error.status, body, headers=[*raw(error.headers), *headers])


def raw(headers: Mapping[str, str]) -> RawHeaders:
    """Headers as ASGI wants them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


class Response:
    """The answer to one POST, undecided between JSON and an event stream until something forces the choice.

    Use as a context manager, in the request's own task: it starts nothing for a fast call. A call older than 20 ms gets
    a watcher for a hang-up where that cancels; one silent for the keep-alive interval becomes a stream, if the client
    takes one. It takes what comes before the answer to a JSON-RPC call (`upstream/contract.Events`).
    """

    _cancels = True
    """Whether a hang-up ends the work."""
    _recording: Recording | None = None
    _left = False
    _sending: asyncio.Lock | None = None
    _tasks: Sequence[asyncio.Task[None]] = ()
    _wrote = 0.0
    at = 0.0
    """When it is time to look after a call that takes long (`deadlines.Alarm`)."""
    _watches = False
    _is_over = False
    streaming = False

    def __init__(self, http: Http, accepts: Accepts, keepalive_seconds: float) -> None:
        self._http = http
        self._accepts = accepts
        self.is_stream = accepts is _STREAM
        """Whether the client takes nothing but an event stream: who answers commits to it at once."""
        self._keepalive_seconds = keepalive_seconds

    def _record(self) -> Recording | None:
        """Begin the record of the stream, if there is one."""
        return None

    def _primes(self) -> bool:
        """Whether the stream begins with an event of no data, to be taken up from."""
        return False

    def _mirrors(self) -> bool:
        """Whether the framing is the server's."""
        return False

    def __enter__(self) -> Response:
        if self._cancels or self._accepts is not _JSON:
            alarms = self._http.alarms
            now = alarms.loop.time()
            self._keep_alive_at = now + self._keepalive_seconds
            self.at = at = now + _WATCH_AFTER_SECONDS if self._cancels else self._keep_alive_at
            alarms.all.add(self)
            if at < alarms.next:
                alarms.arm(at)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._http.alarms.all.discard(self)
        for task in self._tasks:
            task.cancel()
        if self._recording is not None:
            self._recording.end()  # also of a call that failed here: who resumes the stream must not wait for more
        if kind is asyncio.CancelledError and self._http.guard.took(_HUNG_UP):
            raise ClientLeft from None

    def ring(self) -> None:
        """The call takes long: watch for a hang-up, and keep the connection alive from its time on."""
        if self._cancels and not self._watches:
            self._tasks = self._http.call_when_left(self._leave)
            self._watches = True
            if self._accepts is not _JSON:
                self.at = self._keep_alive_at
                self._http.alarms.add(self)
        else:
            self._start(self._keep_alive)

    # --- what comes before the answer -----------------------------------------------------------------------------

    async def on_stream(self) -> None:
        if self._mirrors():
            await self.commit()

    async def on_interruption(self) -> None:
        """End the client's stream as the server did its own; the rest goes on record, from where it is taken up."""
        can_end = self.streaming and self._recording is not None and not self._left
        if can_end and self._primes() and self._mirrors():
            async with self._lock():
                self._left = True
                await self._http.send({"type": "http.response.body", "body": b""})

    async def on_message(self, message: Notification | Request) -> None:
        await self.say(encode(message))

    async def commit(self) -> None:
        """Decide for the event stream, now."""
        if not self.streaming and self._accepts is not _JSON:
            self.streaming = True
            self._recording = self._record()
            await self._pass({"type": "http.response.start", "status": 200, "headers": list(_STREAM_HEADERS)})
            if self._recording is not None and self._primes():
                await self._write(encode_event(b"", id=self._recording.first, retry=RETRY_MS))

    async def event(self, frame: bytes) -> None:
        """Send an event ahead of the result; a client that takes only JSON does not get it."""
        await self.commit()
        if self.streaming:
            await self._write(frame)

    async def say(self, payload: bytes) -> None:
        """Send a JSON-RPC message ahead of the result."""
        await self.commit()
        if self.streaming:
            await self._write(self.frame(payload))

    def frame(self, payload: bytes, answers: Id | None = None) -> bytes:
        """A JSON-RPC message as an event, recorded where the stream is; `answers` names the request it ends."""
        id = self._recording.event(payload, answers) if self._recording is not None else None
        return encode_event(payload, name="message", id=id)

    def finish(self, payload: bytes, answers: Id | None, status: int = 200) -> Awaitable[None]:
        """Send a JSON-RPC answer: as the last event if this is a stream by now, else as the body."""
        if self._tasks or self.streaming:
            return self._finish(payload, answers, status)
        self._is_over = True
        self._http.alarms.all.discard(self)
        return send_bytes(self._http, status, payload)

    async def _finish(self, payload: bytes, answers: Id | None, status: int) -> None:
        await self._stop()
        if self.streaming:
            await self._end(self.frame(payload, answers))
        else:
            await send_bytes(self._http, status, payload)

    async def finish_batch(self, answers: Sequence[tuple[Id | None, bytes]]) -> None:
        """Send the answers to a batch: an event each, one array, or 202 if there are none."""
        await self._stop()
        if self.streaming:
            await self._end(b"".join(self.frame(payload, id) for id, payload in answers))
        elif answers:
            await send_bytes(self._http, 200, b"[" + b",".join(payload for _, payload in answers) + b"]")
        else:
            await send_empty(self._http, 202)

    async def finish_as(self, event: str, body: bytes, send: Callable[[], Awaitable[None]]) -> None:
        """Send the end of a call outside JSON-RPC: as an event of this name, else by `send`."""
        await self._stop()
        if self.streaming:
            await self._end(encode_event(body, name=event))
        else:
            await send()

    async def _end(self, frame: bytes) -> None:
        await self._write(frame)
        if self._recording is not None:
            self._recording.end()
        if not self._left:
            await self._http.send({"type": "http.response.body", "body": b""})

    async def _stop(self) -> None:
        """From here on no task writes, and a hang-up cancels nothing."""
        self._is_over = True
        self._http.alarms.discard(self)
        if self._tasks:
            await end(self._tasks)
            self._tasks = ()

    def _lock(self) -> asyncio.Lock:
        if self._sending is None:
            self._sending = asyncio.Lock()
        return self._sending

    async def _write(self, frame: bytes) -> None:
        self._wrote = self._http.alarms.loop.time()
        await self._pass({"type": "http.response.body", "body": frame, "more_body": True})

    async def _pass(self, message: AsgiMessage) -> None:
        """Send a part of the stream; one that is on record goes on without a client that left."""
        async with self._lock():
            if self._left:
                return
            try:
                await self._http.send(message)
            except ClientLeft:
                if self._recording is None:
                    raise
                self._left = True  # it may come back for the rest

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                await work()
            except ClientLeft:
                self._leave()

        self._tasks = [*self._tasks, asyncio.create_task(run())]

    def _leave(self) -> None:
        """The client left: end the work at once, unless it has ended."""
        if not self._is_over:
            self._http.guard.cut(_HUNG_UP)

    async def _keep_alive(self) -> None:
        now = self._http.alarms.loop.time
        while True:
            if now() - self._wrote >= self._keepalive_seconds:
                await self.commit()
                await self._write(KEEP_ALIVE)
            await asyncio.sleep(self._keepalive_seconds)


async def stream(
    http: Http, frames: Callable[[], AsyncGenerator[bytes, None]], headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Write frames until they end or the client leaves; HEAD gets no frame.

    Hypercorn's send() stays silent after a disconnect, so we listen as well.
    """
    await http.send({"type": "http.response.start", "status": 200, "headers": [*_STREAM_HEADERS, *headers]})
    if http.method == "HEAD":
        await http.send({"type": "http.response.body", "body": b""})
        return
    with Scope(http.alarms) as writing:
        leaving = http.call_when_left(writing.cut)
        try:
            async with aclosing(frames()) as parts:
                async for frame in parts:
                    await http.send({"type": "http.response.body", "body": frame, "more_body": True})
        except asyncio.CancelledError:
            if writing.is_cut:
                return  # the client left; the scope's own end is quiet then
            if (ended := key_ended(http.guard)) is None:
                raise
            log_refusal(http, ended)
            await http.send({"type": "http.response.body", "body": _farewell(http, ended), "more_body": True})
        finally:
            if leaving:
                await end(leaving)
    await http.send({"type": "http.response.body", "body": b""})


def _farewell(http: Http, error: GatewayError) -> bytes:
    """The last event of a stream that ends before its time: why, in the protocol of its address."""
    if http.protocol is Protocol.JSON_RPC:
        said = Notification("notifications/message", {"level": "alert", "logger": "mcp-gateway", "data": error.detail})
        return encode_event(encode(said), name="message")
    return encode_event(dump(problem(error)), name="error")
