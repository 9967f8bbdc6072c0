"""The contract of an upstream, whatever it is reached by, and what passes between it and its callers.

An upstream knows its own wire and the handshake; not names, principals or the registry.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from typing import Protocol

from gateway.protocol.exchange import Handshake, Hello
from gateway.protocol.messages import Failure, Message, Notification, Reply, Request


@dataclass(frozen=True, slots=True)
class UpstreamSession:
    """One session with an upstream; `session_id` is None where it keeps none.

    `holder` names the worker that alone can carry its messages, for transports that are bound to one process.
    """

    handshake: Handshake
    session_id: str | None
    holder: str | None = None


class SessionExpired(Exception):
    """The upstream does not know the session any more: it took nothing; open a new one and send again."""


class NoStream(Exception):
    """The upstream has no stream of its own to listen to."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The upstream answers with an event stream, whose head is here."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The upstream ended its stream before the answer; it is taken up again where it ended."""


MessageStream = AsyncGenerator[StreamOpened | Interrupted | Message, None]
"""An answer that is a stream: its messages as they arrive, the answer last. The iterating side closes it."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message on an upstream's own stream, and the event id to take the stream up after it."""

    message: Message
    event_id: str | None


class Upstream(Protocol):
    """A server that can be talked to. Errors are UpstreamError's subclasses, naming the server."""

    async def open(self, hello: Hello) -> UpstreamSession:
        """Shake hands. Raises UpstreamError."""
        ...

    def call(self, session: UpstreamSession, request: Request) -> Awaitable[Reply | Failure | MessageStream]:
        """Send a request; return its answer, or the stream of messages that ends with it.

        Raises SessionExpired (also the stream, before its first message) and UpstreamError.
        """
        ...

    def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        """Listen to what the server says by itself, after an event where one is known; ends when the stream does.

        Raises NoStream, SessionExpired or UpstreamError; the iterating side closes it.
        """
        ...

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        """Send what needs no answer. Raises UpstreamError."""
        ...

    async def end(self, session: UpstreamSession) -> None:
        """End the session upstream, if it keeps one; never raises."""
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...


class Events(Protocol):
    """Where that goes which comes before the answer to a call."""

    async def on_stream(self) -> None:
        """The server answers with an event stream."""
        ...

    async def on_interruption(self) -> None:
        """The server ended its stream before the answer; it is taken up again."""
        ...

    async def on_message(self, message: Notification | Request) -> None:
        """The server sent a notification, or asks something."""
        ...


class NoEvents:
    """For those who want the answer only."""

    async def on_stream(self) -> None:
        pass

    async def on_interruption(self) -> None:
        pass

    async def on_message(self, message: Notification | Request) -> None:
        pass


NO_EVENTS = NoEvents()
