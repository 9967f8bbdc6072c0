"""Following an answer that is a stream: what its messages mean, who hears them, and what the server is told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Protocol

from gateway.errors import UpstreamProtocolError
from gateway.protocol.exchange import Ask, Changed, Emit, Event, SendBack, answer_for_nobody, read_shared
from gateway.protocol.messages import Failure, Id, Notification, Reply, Request
from gateway.upstream.contract import (
    NO_EVENTS,
    Events,
    Interrupted,
    MessageStream,
    StreamOpened,
    Upstream,
    UpstreamSession,
)
from gateway.upstream.deadline import CallDeadline

_MAX_ASKED = 100  # requests of a server during one call


class Follower(Protocol):
    """Takes what a server says before its answer."""

    @property
    def events(self) -> Events:
        """Where it goes."""
        ...

    def read(self, message: Notification | Request) -> Event:
        """Say what a message means."""
        ...

    async def ask(self, request: Request, answered: Callable[[], None]) -> Reply | Failure | None:
        """Pass on what a server asks; None if the answer comes later, by itself, else what to tell it at once.

        `answered` is called when the client has answered, if this worker hears of it.
        """
        ...

    def close(self) -> None:
        """The stream is over: nothing is waited for any more."""
        ...


class Unasked:
    """A follower for a request behind which there is no single client that could be asked (`protocol/exchange`)."""

    def __init__(self, request: Request, id: Id, *, wants_progress: bool = False, events: Events = NO_EVENTS) -> None:
        """`request` is the caller's, `id` what it has upstream."""
        self.events = events
        self.read = partial(read_shared, request=request, id=id, wants_progress=wants_progress)

    async def ask(self, request: Request, answered: Callable[[], None]) -> Reply | Failure | None:
        return answer_for_nobody(request)

    def close(self) -> None:
        pass


class Following:
    """Follows the streams of one server."""

    def __init__(self, server: str, upstream: Upstream, changed: Callable[[str, str], None]) -> None:
        """`changed` is told of the server, and of its notification that one of its lists changed."""
        self._server = server
        self._upstream = upstream
        self._changed = changed

    async def __call__(
        self,
        stream: MessageStream,
        session: UpstreamSession,
        request: Request,
        follower: Follower,
        deadline: CallDeadline,
    ) -> Reply | Failure:
        """Pass on what comes, until the answer does. Raises UpstreamError."""
        asked, events = 0, follower.events
        async with aclosing(stream):
            async for message in stream:
                if isinstance(message, StreamOpened):
                    await events.on_stream()
                    continue
                if isinstance(message, Interrupted):
                    await events.on_interruption()
                    continue
                if isinstance(message, Reply | Failure):
                    if message.id == request.id:
                        return message
                    continue  # an answer that is not ours
                match follower.read(message):
                    case Emit(notification):
                        await events.on_message(notification)
                        deadline.extend()
                    case Changed(notification, passes):
                        if not request.method.endswith("/list"):
                            self._changed(self._server, notification.method)
                        if passes:
                            await events.on_message(notification)
                    case SendBack(answer):
                        asked = self._counted(asked)
                        await self._upstream.post(session, answer)
                    case Ask(question):
                        asked = self._counted(asked)
                        deadline.wait_for_client()
                        if (told := await follower.ask(question, deadline.client_answered)) is not None:
                            deadline.client_answered()
                            await self._upstream.post(session, told)
        raise no_result(self._server)

    def _counted(self, asked: int) -> int:
        """Count a server's requests during one call. Raises UpstreamProtocolError when they are too many."""
        if asked >= _MAX_ASKED:
            raise UpstreamProtocolError(
                self._server,
                f"Server {self._server!r} sent more than {_MAX_ASKED} requests during one call.",
            )
        return asked + 1


def no_result(server: str) -> UpstreamProtocolError:
    """A server answered something else than what it was asked."""
    return UpstreamProtocolError(server, f"Server {server!r} ended its answer without a result.")
