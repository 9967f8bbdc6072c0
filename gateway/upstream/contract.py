"""The contract of an upstream, whatever it is reached by.

An upstream knows its own wire and the handshake; not names, principals or the registry.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from gateway.protocol.exchange import Handshake, Hello
from gateway.protocol.messages import Failure, Message, Notification, Reply, Request


@dataclass(frozen=True, slots=True)
class Link:
    """One session with an upstream; `session_id` is None where it keeps none.

    `holder` names the worker that alone can carry its messages, for transports that are bound to one process.
    """

    handshake: Handshake
    session_id: str | None
    holder: str | None = None


class SessionExpired(Exception):
    """The upstream does not know the session any more: it took nothing; open a new link and send again."""


@dataclass(frozen=True, slots=True)
class Answering:
    """The upstream's response head is here: `streaming` if its body is an event stream."""

    streaming: bool


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The upstream ended its stream before the answer; it is taken up again where it ended."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message on an upstream's own stream, and the event id to take the stream up after it."""

    message: Message
    event_id: str | None


class NoStream(Exception):
    """The upstream has no stream of its own to listen to."""


class Upstream(Protocol):
    """A server that can be talked to. Errors are UpstreamError's subclasses, naming the server."""

    async def open(self, hello: Hello) -> Link:
        """Shake hands. Raises UpstreamError."""
        ...

    def send(self, link: Link, request: Request) -> AsyncGenerator[Answering | Interrupted | Message, None]:
        """Send a request; yield the response head, then messages as they arrive.

        Raises SessionExpired before the first message, UpstreamError at any time; whoever iterates closes it.
        """
        ...

    def listen(self, link: Link, after: str | None) -> AsyncGenerator[Heard, None]:
        """Listen to what the server says by itself, after an event where one is known; ends when the stream does.

        Raises NoStream, SessionExpired or UpstreamError; whoever iterates closes it.
        """
        ...

    async def post(self, link: Link, message: Notification | Reply | Failure) -> None:
        """Send what needs no answer. Raises UpstreamError."""
        ...

    async def end(self, link: Link) -> None:
        """End the session upstream, if it keeps one; never raises."""
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...
