"""Answers that take their time: JSON or an event stream, decided late; streams that stay; what a refusal leaves unread.

Knows ASGI messages, disconnects and keep-alives; nothing of MCP's methods.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from types import TracebackType

from starlette.types import Message as AsgiMessage
from starlette.types import Receive, Send

from gateway.edge.replies import Accepts, Http, RawHeaders
from gateway.errors import ClientLeft
from gateway.protocol.messages import Id
from gateway.protocol.sse import KEEP_ALIVE, encode_event
from gateway.stores.event_log import Recording
from gateway.tasks import end

_WATCH_AFTER_SECONDS = 0.02
_DISCARD_SECONDS = 5.0
_SEND_SECONDS = 30.0
RETRY_MS = 500
"""How long a client should wait before it takes up a stream that was cut."""

_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class Wire:
    """One request's `receive` and `send`, watched.

    A refusal that is sent while the body is still on its way would be lost: the server closes the connection, and a
    proxy in between sees a reset instead of the answer. So a refused body is read to its end first, up to a bound.
    The answer to HEAD is that to GET without its body.
    """

    def __init__(self, receive: Receive, send: Send, discard: int, *, head: bool = False) -> None:
        self._receive = receive
        self._send = send
        self._discard = discard
        self._head = head
        self._complete = False
        self.started = False
        self.finished = False

    async def receive(self) -> AsgiMessage:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._complete = True
        return message

    async def send(self, message: AsgiMessage) -> None:
        if not self.started:
            self.started = True
            if message["status"] >= 400 and not self._complete:
                await self._read_rest()
        elif self._head:
            message = {**message, "body": b""}
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self._send(message)
        except TimeoutError:
            raise ClientLeft from None  # it is there, but does not read
        self.finished = message["type"] == "http.response.body" and not message.get("more_body", False)

    async def _read_rest(self) -> None:
        try:
            async with asyncio.timeout(_DISCARD_SECONDS):
                while not self._complete and self._discard > 0:
                    self._discard -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass  # too slow: the refusal goes out all the same


class Answer:
    """The answer to one POST, undecided between JSON and an event stream until something forces the choice.

    Use as a context manager: it starts nothing for a fast call. A call older than 20 ms gets a watcher for a
    hang-up where that cancels; one silent for the keep-alive interval becomes a stream, if the client takes one.
    """

    def __init__(
        self,
        http: Http,
        accepts: Accepts,
        keepalive_seconds: float,
        *,
        cancels: bool,
        record: Callable[[], Recording] | None = None,
        primes: bool = False,
    ) -> None:
        """`record` begins the record of the stream, if it becomes one; `primes` begins it with an event of no data."""
        self._receive = http.receive
        self._send = http.send
        self._accepts = accepts
        self._keepalive_seconds = keepalive_seconds
        self._cancels = cancels
        self._record = record
        self._recording: Recording | None = None
        self._primes = primes
        self._left = False
        self._sending = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._hang_up = asyncio.timeout(None)
        self._wrote = 0.0
        self.streaming = False
        self.headers: RawHeaders = []

    async def __aenter__(self) -> Answer:
        loop = asyncio.get_running_loop()
        if self._cancels:
            self._timers.append(loop.call_later(_WATCH_AFTER_SECONDS, self._start, self._watch))
        if self._accepts is not Accepts.JSON:
            self._timers.append(loop.call_later(self._keepalive_seconds, self._start, self._keep_alive))
        await self._hang_up.__aenter__()
        try:
            if self._accepts is Accepts.STREAM:
                await self.commit()
        except BaseException as error:  # there is no `__aexit__` for a block that was not entered
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        if self._recording is not None:
            self._recording.end()  # also of a call that failed here: who resumes the stream must not wait for more
        try:
            await self._hang_up.__aexit__(kind, error, trace)
        except TimeoutError:
            raise ClientLeft from None

    async def commit(self) -> None:
        """Decide for the event stream, now."""
        if not self.streaming and self._accepts is not Accepts.JSON:
            self.streaming = True
            self._recording = self._record() if self._record is not None else None
            headers = [*_STREAM_HEADERS, *self.headers]
            await self._pass({"type": "http.response.start", "status": 200, "headers": headers})
            if self._recording is not None and self._primes:
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

    async def interrupt(self) -> None:
        """End the client's stream before the result, which goes on record: the client takes it up from there."""
        if self.streaming and self._recording is not None and not self._left:
            async with self._sending:
                self._left = True
                await self._send({"type": "http.response.body", "body": b""})

    async def finish(self, frame: Callable[[], bytes], body: Callable[[], Awaitable[None]]) -> None:
        """Send the result: as the last event if this is a stream by now, else by `body`."""
        await self._stop()
        if not self.streaming:
            await body()
            return
        await self._write(frame())
        if self._recording is not None:
            self._recording.end()
        if not self._left:
            await self._send({"type": "http.response.body", "body": b""})

    async def _stop(self) -> None:
        """From here on nobody else writes, and a hang-up cancels nothing."""
        for timer in self._timers:
            timer.cancel()
        if self._tasks:
            await end(self._tasks)

    async def _write(self, frame: bytes) -> None:
        self._wrote = asyncio.get_running_loop().time()
        await self._pass({"type": "http.response.body", "body": frame, "more_body": True})

    async def _pass(self, message: AsgiMessage) -> None:
        """Send a part of the stream; one that is on record goes on without a client that left."""
        async with self._sending:
            if self._left:
                return
            try:
                await self._send(message)
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

        self._tasks.append(asyncio.create_task(run()))

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        """Nobody waits for the answer any more: end the work at once, unless it has ended."""
        try:
            self._hang_up.reschedule(0)  # our loop's clock began before
        except RuntimeError:
            pass

    async def _keep_alive(self) -> None:
        now = asyncio.get_running_loop().time
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
    writing = asyncio.create_task(_write_all(http.send, frames()))
    leaving = asyncio.create_task(_disconnected(http.receive))
    try:
        await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end((writing, leaving))
    if not writing.cancelled():
        writing.result()
    if leaving.cancelled():  # so the client is still there
        await http.send({"type": "http.response.body", "body": b""})


async def _write_all(send: Send, frames: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(frames):
        async for frame in frames:
            await send({"type": "http.response.body", "body": frame, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
