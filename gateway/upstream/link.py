"""The link to one server: its shared session, its share of this worker, its circuit breaker.

What happens to one server never touches another: each has its own client, its own link and its own tasks.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from gateway import version
from gateway.errors import (
    ClientLeft,
    GatewayError,
    OutcomeUnknown,
    ServerBusy,
    UpstreamProtocolError,
    UpstreamSuspended,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.model.breaker import Breaker
from gateway.model.server import ServerSpec
from gateway.protocol import versions
from gateway.protocol.exchange import (
    Answer,
    Ask,
    Changed,
    Done,
    Emit,
    Exchange,
    Handshake,
    Hello,
    Talk,
    answer_for_nobody,
)
from gateway.protocol.messages import Failure, Notification, Reply, Request
from gateway.tasks import end
from gateway.upstream.contract import Answering, Heard, Interrupted, Link, SessionExpired, Upstream

Tell = Callable[[Answering | Interrupted | Notification | Request], Awaitable[None]]
AskClient = Callable[[Request, Callable[[], None]], Awaitable[Reply | Failure | None]]
"""Passes on what a server asks; None if the answer comes later, by itself, else what to answer at once.

The second argument is called when the client has answered, if this worker hears of it.
"""


class ShowBreaker(Protocol):
    """Told whether a server's circuit breaker is open, when that changes."""

    def __call__(self, server: str, *, is_open: bool) -> None: ...


Judged = TypeVar("Judged")

FAREWELL_SECONDS = 2.0
_POST_SECONDS = 10.0
_END_SECONDS = 8.0  # a program is given time to end
_MAX_ASKED = 100  # requests of a server during one call

log = logging.getLogger("gateway.link")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a call may take, in seconds (without progress, and at all), and what one server may take of a worker."""

    call_seconds: float
    cap_seconds: float
    max_calls: int = 64
    breaker_failures: int = 5
    breaker_seconds: float = 30.0


async def tell_nobody(_: Answering | Interrupted | Notification | Request) -> None:
    """The `tell` of those who only want the answer."""


async def ask_nobody(request: Request, answered: Callable[[], None]) -> Reply | Failure:
    """The `ask` of those who declared no capability."""
    return answer_for_nobody(request)


OURSELVES = Hello(versions.LATEST_HANDSHAKE, {}, {"name": version.NAME, "version": version.VERSION}, shared=True)
"""What the gateway says of itself where it speaks for nobody in particular."""


class Live:
    """The link to one server, shared by all callers of this worker."""

    def __init__(
        self,
        spec: ServerSpec,
        upstream: Upstream,
        bounds: Bounds,
        changed: Callable[[str, str], None],
        show_breaker: ShowBreaker,
        failed: Callable[[str], None] = lambda server: None,
    ) -> None:
        self.spec = spec
        self._upstream = upstream
        self._bounds = bounds
        self._changed = changed
        self._ids = itertools.count(1)
        self._link: Link | None = None
        self._opening: asyncio.Task[Link] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._calls = 0
        self._listening = 0
        self._retired = False
        self._breaker = Breaker(bounds.breaker_failures, bounds.breaker_seconds)
        self._show_breaker = show_breaker
        self._failed = failed
        self._shown_open = False

    async def request(self, request: Request, tell: Tell, *, wants_progress: bool = False) -> Reply | Failure:
        """Carry one request over the shared session, telling what comes before its answer. Raises UpstreamError."""
        return await self._judged(lambda: self._carry(request, tell, wants_progress))

    async def converse(self, link: Link, talk: Talk, tell: Tell, ask: AskClient) -> Reply | Failure:
        """Carry one request over a session of somebody's own. Raises SessionExpired or UpstreamError."""
        return await self._judged(lambda: self._talk(link, talk, tell, ask))

    async def open(self, hello: Hello) -> Link:
        """Open a session for somebody. Raises UpstreamError."""
        return await self._judged(lambda: self._upstream.open(hello))

    async def post(self, link: Link, message: Notification | Reply | Failure) -> None:
        """Send what needs no answer. Raises UpstreamError."""
        with self._held():
            try:
                async with asyncio.timeout(_POST_SECONDS):
                    await self._upstream.post(link, message)
            except TimeoutError:
                raise UpstreamTimeout(
                    self.spec.name, f"Server {self.spec.name!r} did not take a message within {_POST_SECONDS:g} s."
                ) from None

    async def end(self, link: Link) -> None:
        """End somebody's session upstream; never raises, never takes long."""
        with self._held():
            try:
                async with asyncio.timeout(_END_SECONDS):
                    await self._upstream.end(link)
            except TimeoutError:
                log.warning("server %s did not take the end of a session", self.spec.name)

    async def listen(self, link: Link, after: str | None) -> AsyncGenerator[Heard, None]:
        """Listen to what the server says by itself. Raises NoStream, SessionExpired or UpstreamError."""
        self._listening += 1
        try:
            async with aclosing(self._upstream.listen(link, after)) as heard:
                async for each in heard:
                    yield each
        finally:
            self._listening -= 1
            self._end_if_retired()

    def said_changed(self, method: str) -> None:
        """The server said on somebody's stream that one of its lists changed."""
        self._changed(self.spec.name, method)

    async def _judged(self, work: Callable[[], Awaitable[Judged]]) -> Judged:
        """Do one piece of work within the server's share, and let its outcome move the breaker."""
        self._admit()
        with self._held():
            try:
                answer = await work()
            except (UpstreamUnreachable, UpstreamTimeout, OutcomeUnknown) as error:
                self._breaker.failed(_now(), error.detail)
                self._show()
                if not isinstance(error, UpstreamTimeout):
                    self._failed(self.spec.name)
                raise
            except (GatewayError, SessionExpired):
                self.revive()  # somebody is there
                raise
            except BaseException:  # the caller left, or a fault of ours: nothing is known of the server
                self._breaker.left()
                raise
            self.revive()
            return answer

    async def handshake(self) -> Handshake:
        """What the server says of itself. Raises UpstreamError."""
        with self._held():
            return (await self._open()).handshake

    @asynccontextmanager
    async def probe(self) -> AsyncIterator[Probe]:
        """A link of its own for the time of the block, as discovery wants it. Raises UpstreamError."""
        with self._held():
            link = await self._upstream.open(OURSELVES)
            self.revive()
            try:
                yield Probe(self, link)
            finally:
                await self._upstream.end(link)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Count a use of the connections: a retired link closes after the last one."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self._end_if_retired()

    def _end_if_retired(self) -> None:
        if self._retired and not self.in_use:
            self._spawn(self._end())

    @property
    def in_use(self) -> bool:
        """Whether a call is under way, or somebody listens."""
        return bool(self._calls or self._listening)

    @property
    def upstream(self) -> Upstream:
        """The way to the server, for who carries out another worker's errand."""
        return self._upstream

    def breaker(self) -> str:
        """`closed`, `open` or `half-open`."""
        return self._breaker.state(_now())

    def revive(self) -> None:
        """The server is there: close the breaker."""
        self._breaker.succeeded()
        self._show()

    def _show(self) -> None:
        is_open = self.breaker() != "closed"
        if is_open is not self._shown_open:
            self._shown_open = is_open
            self._show_breaker(self.spec.name, is_open=is_open)

    def _admit(self) -> None:
        """Keep to the server's share, and leave a failing one alone. Raises ServerBusy or UpstreamSuspended."""
        if self._calls >= self._bounds.max_calls:
            raise ServerBusy(self.spec.name, self._bounds.max_calls)
        if (wait := self._breaker.wait(_now())) is not None:
            raise UpstreamSuspended(self.spec.name, self._breaker.failures, self._breaker.reason, wait)

    async def _carry(self, request: Request, tell: Tell, wants_progress: bool) -> Reply | Failure:
        reason = ""
        for _ in range(2):
            link = await self._open()
            try:
                exchange = Exchange(request, next(self._ids), wants_progress=wants_progress)
                return await self._talk(link, exchange, tell, ask_nobody)
            except SessionExpired as error:
                reason = str(error)
                if self._link is link:
                    self._link = None
                    self._spawn(self._upstream.end(link))
        raise UpstreamProtocolError(
            self.spec.name, f"Server {self.spec.name!r} does not know the session that it just made: {reason}."
        )

    def retire(self) -> None:
        """Close once the last call has ended."""
        self._retired = True
        if self._shown_open:
            self._show_breaker(self.spec.name, is_open=False)
        self._end_if_retired()

    async def close(self) -> None:
        """Say goodbye and let go of everything, at once."""
        self._retired = True
        await self._end()
        tasks = [task for task in self._background if task is not asyncio.current_task()]
        await end(tasks)

    async def _open(self) -> Link:
        """The shared link; whoever comes while it is being opened waits for the same attempt."""
        if self._link is None:
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._shake())
                self._opening.add_done_callback(_retrieve)  # its waiters may all have left
            try:
                return await asyncio.shield(self._opening)
            except asyncio.CancelledError:
                if self._opening.cancelled():  # the upstream was closed, not the caller
                    raise UpstreamProtocolError(
                        self.spec.name, f"Server {self.spec.name!r} was removed or changed meanwhile."
                    ) from None
                raise
        return self._link

    async def _shake(self) -> Link:
        self._link = await self._upstream.open(OURSELVES)
        return self._link

    async def _talk(self, link: Link, talk: Talk, tell: Tell, ask: AskClient) -> Reply | Failure:
        asked = waiting = 0
        seconds = self.spec.timeout_seconds or self._bounds.call_seconds
        cap = _now() + max(seconds, self._bounds.cap_seconds)
        request = talk.outgoing()
        deadline = asyncio.timeout(seconds)

        def answered() -> None:
            """The client answered: from the last answer on, the server has its usual time again."""
            nonlocal waiting
            waiting -= 1
            if not waiting:
                try:
                    deadline.reschedule(min(_now() + seconds, cap))
                except RuntimeError:
                    pass  # the call has ended meanwhile

        try:
            async with (
                deadline,
                aclosing(self._upstream.send(link, request)) as messages,
            ):
                async for message in messages:
                    if isinstance(message, Answering | Interrupted):
                        await tell(message)
                        continue
                    match talk.receive(message):
                        case Done(answer):
                            return answer
                        case Emit(notification):
                            await tell(notification)
                            deadline.reschedule(max(deadline.when() or 0.0, min(_now() + seconds, cap)))
                        case Changed(notification, passes):
                            if not request.method.endswith("/list"):
                                self._changed(self.spec.name, notification.method)
                            if passes:
                                await tell(notification)
                        case Answer(answer):
                            asked = self._counted(asked)
                            await self._upstream.post(link, answer)
                        case Ask(question):
                            asked = self._counted(asked)
                            waiting += 1
                            if (at_once := await ask(question, answered)) is not None:
                                waiting -= 1
                                await self._upstream.post(link, at_once)
                            elif waiting:
                                deadline.reschedule(cap)  # waiting for a human: only the overall cap applies
        except TimeoutError:
            self._spawn(self._upstream.post(link, talk.cancelled("deadline exceeded")))
            raise UpstreamTimeout(
                self.spec.name, f"Server {self.spec.name!r} did not answer within {seconds:g} s."
            ) from None
        except (asyncio.CancelledError, ClientLeft):
            self._spawn(self._upstream.post(link, talk.cancelled("the caller left")))
            raise
        raise UpstreamProtocolError(self.spec.name, f"Server {self.spec.name!r} ended its answer without a result.")

    def _counted(self, asked: int) -> int:
        """Count a server's requests during one call. Raises UpstreamProtocolError when they are too many."""
        if asked >= _MAX_ASKED:
            raise UpstreamProtocolError(
                self.spec.name,
                f"Server {self.spec.name!r} sent more than {_MAX_ASKED} requests during one call.",
            )
        return asked + 1

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._quietly(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await work
        except (GatewayError, SessionExpired, TimeoutError) as error:
            log.debug("background message to %s failed: %s", self.spec.name, error)

    async def _end(self) -> None:
        if self._opening is not None and not self._opening.done():
            await end([self._opening])
        link, self._link = self._link, None
        if link is not None:
            await self._upstream.end(link)
        await self._upstream.close()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _retrieve(task: asyncio.Task[Link]) -> None:
    if not task.cancelled():
        task.exception()


class Probe:
    """A link of one's own to a server, for asking what it offers."""

    def __init__(self, live: Live, link: Link) -> None:
        self._live = live
        self._link = link
        self.handshake = link.handshake

    async def request(self, request: Request) -> Reply | Failure:
        """Carry one request upstream on this link. Raises UpstreamError."""
        try:
            exchange = Exchange(request, next(self._live._ids))
            return await self._live._talk(self._link, exchange, tell_nobody, ask_nobody)
        except SessionExpired:
            name = self._live.spec.name
            raise UpstreamProtocolError(name, f"Server {name!r} forgot its session at once.") from None
