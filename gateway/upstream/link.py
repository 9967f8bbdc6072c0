"""The link to one server: its shared session, its share of this worker, its circuit breaker.

What happens to one server never touches another: each has its own client, its own link and its own tasks. All calls
of a worker to a server, of whichever client, pass `call` (on a session of the client's own) or `call_shared`.

The breaker (`model/breaker`) is *closed*: calls pass. Failures in a row open it: no connection, no answer in time, a
connection lost. An answer of any kind closes it, also an error, since somebody is there. While it is *open*, calls
fail at once with the reason and the seconds left. After a pause it is *half-open*: one call passes as a trial; its
failure opens it for twice as long, its answer closes it. A caller that leaves during a trial says nothing of the
server, so the next call is the trial. Each worker has a breaker of its own; discovery's probes pass beside it and
close it when the server answers.

A link is *live* until the registry drops or changes its server, then *retired*: calls under way and streams go on,
and after the last one the upstream is closed. A later call gets the new link from the pool.

The shared session is opened by the first call that needs it; others wait for the same attempt, and a failed attempt
is not kept. An upstream that forgot it (SessionExpired, before anything was carried out) gets the call again, once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol

from gateway import version
from gateway.deadlines import Alarms, Guard
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
    Handshake,
    Hello,
    cancelled,
    outgoing,
)
from gateway.protocol.messages import Failure, Notification, Reply, Request
from gateway.tasks import end
from gateway.upstream.contract import (
    NO_EVENTS,
    Events,
    Heard,
    SessionExpired,
    Upstream,
    UpstreamSession,
)
from gateway.upstream.deadline import CallDeadline
from gateway.upstream.following import Follower, Following, Unasked, no_result


class ShowBreaker(Protocol):
    """Told whether a server's circuit breaker is open, when that changes."""

    def __call__(self, server: str, *, is_open: bool) -> None: ...


FAREWELL_SECONDS = 2.0
_POST_SECONDS = 10.0
_END_SECONDS = 8.0  # a program is given time to end
_ANSWERS = (Reply, Failure)
_LATE = object()  # a reason to cut a call

log = logging.getLogger("gateway.link")


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How long a call may take, in seconds (without progress, and at all), and what one server may take of a worker."""

    call_seconds: float
    cap_seconds: float
    max_calls: int = 64
    breaker_failures: int = 5
    breaker_seconds: float = 30.0


_RESERVE = 8  # the part of a server's share that the master key leaves to keys: one in so many

OURSELVES = Hello(versions.LATEST_HANDSHAKE, {}, {"name": version.NAME, "version": version.VERSION}, shared=True)
"""What the gateway says of itself where it speaks for no single client."""


class ServerLink:
    """The link to one server, shared by all callers of this worker."""

    def __init__(
        self,
        spec: ServerSpec,
        upstream: Upstream,
        limits: CallLimits,
        changed: Callable[[str, str], None],
        show_breaker: ShowBreaker,
        failed: Callable[[str], None] = lambda server: None,
        alarms: Alarms | None = None,
    ) -> None:
        self.spec = spec
        self._upstream = upstream
        self._limits = limits
        self._seconds = spec.timeout_seconds or limits.call_seconds
        self._alarms = alarms or Alarms()
        self._changed = changed
        self._follow = Following(spec.name, upstream, changed)
        self._ids = itertools.count(1)
        self._session: UpstreamSession | None = None
        self._opening: asyncio.Task[UpstreamSession] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._calls = 0
        self._half = max(1, limits.max_calls // 2)
        self._reserve = limits.max_calls // _RESERVE
        self._of: dict[str | int, int] = {}  # calls under way, by key; those of the master key by session
        self._keyed = 0  # calls under way of others than the master key
        self._answered = 0
        self._uses = 0
        self._listening = 0
        self._retired = False
        self._breaker = Breaker(limits.breaker_failures, limits.breaker_seconds)
        self._show_breaker = show_breaker
        self._failed = failed
        self._shown_open = False

    # --- calls --------------------------------------------------------------------------------------------------

    async def call(
        self,
        session: UpstreamSession,
        request: Request,
        follow: Callable[[], Follower] | None = None,
        guard: Guard | None = None,
        *,
        key: str | None = None,
        is_probe: bool = False,
    ) -> Reply | Failure:
        """Carry one request over a session; the answer has its id. Raises SessionExpired or UpstreamError.

        `follow` says who hears what comes before the answer, which only a stream has: nobody without it, so that a
        server that asks is refused. `guard` is the task's own, if it has one. `key` is the id of the key that asks,
        None for the master key. A probe passes beside the server's share and its breaker.
        """
        if not is_probe:
            if self._calls >= self._half or self._breaker.failures:
                self._check(session, key)
            self._calls += 1
            whose = key or (None if session is self._session else session.session_id or id(session))
            if whose is not None:
                self._of[whose] = self._of.get(whose, 0) + 1
            self._keyed += key is not None
        answered = self._answered
        if guard is None:
            guard = Guard(self._alarms)
        seconds = self._seconds
        guard.limit(seconds, _LATE)
        try:
            answer = await self._upstream.call(session, request)
            if not isinstance(answer, _ANSWERS):
                follower = Unasked(request, request.id) if follow is None else follow()
                deadline = CallDeadline(guard, seconds, self._limits.cap_seconds)
                try:
                    answer = await self._follow(answer, session, request, follower, deadline)
                finally:
                    deadline.end()
                    follower.close()
            elif answer.id != request.id:
                raise no_result(self.spec.name)
        except BaseException as error:
            ended = self._ended(error, session, request, guard, seconds)
            if not is_probe:
                self._judge(ended, others_succeeded=self._answered != answered)
            if ended is error:
                raise
            raise ended from None
        finally:
            guard.lift()
            if not is_probe:
                self._calls -= 1
                self._keyed -= key is not None
                if whose is not None and (own := self._of.pop(whose, 0)) > 1:
                    self._of[whose] = own - 1
            if self._retired:
                self._end_if_retired()
        self._answered += 1
        if self._breaker.failures and not is_probe:
            self.revive()
        return answer

    def _ended(
        self, error: BaseException, session: UpstreamSession, request: Request, guard: Guard, seconds: float
    ) -> BaseException:
        """What ended a call: the error itself, or that its time was up. The server is told if it may still work."""
        if not isinstance(error, asyncio.CancelledError | ClientLeft):
            return error
        is_late = guard.took(_LATE)
        reason = "deadline exceeded" if is_late else "the caller left"
        self._spawn(self._upstream.post(session, cancelled(request.id, reason)))
        if not is_late:
            return error
        return UpstreamTimeout(self.spec.name, f"Server {self.spec.name!r} did not answer within {seconds:g} s.")

    async def call_shared(
        self,
        request: Request,
        events: Events = NO_EVENTS,
        *,
        wants_progress: bool = False,
        guard: Guard | None = None,
        key: str | None = None,
    ) -> Reply | Failure:
        """Carry one request over the session that all callers share; the answer has an id of ours.

        Raises UpstreamError.
        """
        reason = ""
        for _ in range(2):
            session, id = self._session, next(self._ids)
            sent = outgoing(request, id, wants_progress=wants_progress)
            follow = partial(Unasked, request, id, wants_progress=wants_progress, events=events)
            try:
                if session is not None:
                    return await self.call(session, sent, follow, guard, key=key)
                with _Held(self):  # what is retired meanwhile closes after the call
                    session = await self._opened()
                    return await self.call(session, sent, follow, guard, key=key)
            except SessionExpired as error:
                reason = str(error)
                if session is not None and self._session is session:
                    self._session = None
                    self._spawn(self._upstream.end(session))
        raise UpstreamProtocolError(
            self.spec.name, f"Server {self.spec.name!r} does not know the session that it just made: {reason}."
        )

    # --- sessions -----------------------------------------------------------------------------------------------

    async def open(self, hello: Hello) -> UpstreamSession:
        """Open a session for somebody. Raises UpstreamError."""
        self._check()
        with _Held(self):
            try:
                session = await self._upstream.open(hello)
            except BaseException as error:
                self._judge(error)
                raise
        self.revive()
        return session

    async def handshake(self) -> Handshake:
        """What the server says of itself. Raises UpstreamError."""
        with _Held(self):
            return (self._session or await self._open()).handshake

    @asynccontextmanager
    async def probe(self) -> AsyncIterator[Probe]:
        """A session of its own for the time of the block, as discovery wants it. Raises UpstreamError."""
        with _Held(self):
            session = await self._upstream.open(OURSELVES)
            self.revive()
            try:
                yield Probe(self, session)
            finally:
                await self._upstream.end(session)

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        """Send what needs no answer. Raises UpstreamError."""
        with _Held(self):
            try:
                async with asyncio.timeout(_POST_SECONDS):
                    await self._upstream.post(session, message)
            except TimeoutError:
                raise UpstreamTimeout(
                    self.spec.name, f"Server {self.spec.name!r} did not take a message within {_POST_SECONDS:g} s."
                ) from None

    async def end(self, session: UpstreamSession) -> None:
        """End somebody's session upstream; never raises, never takes long."""
        with _Held(self):
            try:
                async with asyncio.timeout(_END_SECONDS):
                    await self._upstream.end(session)
            except TimeoutError:
                log.warning("server %s did not take the end of a session", self.spec.name)

    async def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        """Listen to what the server says by itself. Raises NoStream, SessionExpired or UpstreamError."""
        self._listening += 1
        try:
            async with aclosing(self._upstream.listen(session, after)) as heard:
                async for each in heard:
                    yield each
        finally:
            self._listening -= 1
            self._end_if_retired()

    def lists_changed(self, method: str) -> None:
        """The server said on somebody's stream that one of its lists changed."""
        self._changed(self.spec.name, method)

    async def _opened(self) -> UpstreamSession:
        """The shared session, opened now; the outcome moves the breaker. Raises UpstreamError."""
        self._check()
        try:
            session = await self._open()
        except BaseException as error:
            self._judge(error)
            raise
        self.revive()
        return session

    async def _open(self) -> UpstreamSession:
        """Open the shared session; calls that come meanwhile wait for the same attempt."""
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

    async def _shake(self) -> UpstreamSession:
        self._session = await self._upstream.open(OURSELVES)
        return self._session

    # --- the breaker --------------------------------------------------------------------------------------------

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

    def _check(self, session: UpstreamSession | None = None, key: str | None = None) -> None:
        """Let one more call pass, within the server's share.

        Of it one key gets half at most, and so does one session of the master key; all of the master key leave an
        eighth to others. Raises ServerBusy or UpstreamSuspended.
        """
        name, most = self.spec.name, self._limits.max_calls
        if self._calls >= most:
            raise ServerBusy(name, most)
        if session is not None and self._of.get(key or session.session_id or id(session), 0) >= self._half:
            raise ServerBusy(name, self._half, "session" if key is None else "key")
        if session is not None and key is None and self._calls - self._keyed >= most - self._reserve:
            raise ServerBusy(name, most - self._reserve, "master key")
        if (wait := self._breaker.wait(_now())) is not None:
            raise UpstreamSuspended(self.spec.name, self._breaker.failures, self._breaker.reason, wait)

    def _judge(self, error: BaseException, *, others_succeeded: bool = False) -> None:
        """Let what ended a call move the breaker; one that was slow while others got answers says nothing."""
        if isinstance(error, UpstreamTimeout) and others_succeeded:
            self._breaker.left()
        elif isinstance(error, UpstreamUnreachable | UpstreamTimeout | OutcomeUnknown):
            self._breaker.failed(_now(), error.detail)
            self._show()
            if not isinstance(error, UpstreamTimeout):
                self._failed(self.spec.name)
        elif isinstance(error, GatewayError | SessionExpired):  # somebody is there
            self.revive()
        else:  # the caller left, or a fault of ours: nothing is known of the server
            self._breaker.left()

    # --- the end ------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Count one more use of the connections beside calls: a retired link closes after the last one."""
        self._uses += 1

    def let_go(self) -> None:
        """One use is over."""
        self._uses -= 1
        self._end_if_retired()

    def _end_if_retired(self) -> None:
        if self._retired and not self.in_use:
            self._spawn(self._end())

    @property
    def in_use(self) -> bool:
        """Whether a call or another use is under way, or a stream is listened to."""
        return bool(self._calls or self._uses or self._listening)

    @property
    def upstream(self) -> Upstream:
        """The way to the server, for who carries out another worker's errand."""
        return self._upstream

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
        session, self._session = self._session, None
        if session is not None:
            await self._upstream.end(session)
        await self._upstream.close()


class _Held:
    """One use of the connections that says nothing of the server."""

    __slots__ = ("_link",)

    def __init__(self, link: ServerLink) -> None:
        self._link = link

    def __enter__(self) -> None:
        self._link.hold()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._link.let_go()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _retrieve(task: asyncio.Task[UpstreamSession]) -> None:
    if not task.cancelled():
        task.exception()


class Probe:
    """A session of discovery's own, for asking what a server offers."""

    def __init__(self, link: ServerLink, session: UpstreamSession) -> None:
        self._link = link
        self._session = session
        self._ids = itertools.count(1)
        self.handshake = session.handshake

    async def request(self, request: Request) -> Reply | Failure:
        """Carry one request upstream on this session. Raises UpstreamError."""
        sent = Request(next(self._ids), request.method, request.params)
        try:
            return await self._link.call(self._session, sent, is_probe=True)
        except SessionExpired:
            name = self._link.spec.name
            raise UpstreamProtocolError(name, f"Server {name!r} forgot its session at once.") from None
