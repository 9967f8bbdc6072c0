"""One channel that carries everything of a session: requests are told apart by their ids, the rest by what it is.

What the old SSE transport and a child's pipes have in common. A server's message that belongs to no request in
particular goes to the call under way if there is but one, else to whoever listens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from gateway.protocol import versions
from gateway.protocol.messages import Failure, Id, Message, Notification, Reply, Request

_OF_NO_CALL = versions.LIST_CHANGES | {"notifications/resources/updated"}
_MAX_WAITING = 1000  # messages of a server that somebody has not taken yet

log = logging.getLogger("gateway.duplex")


class ChannelClosed(Exception):
    """The channel is gone, and what was under way with it."""


class _Pending:
    def __init__(self, token: Any) -> None:
        self.token = token
        self.messages: asyncio.Queue[Message | None] = asyncio.Queue(_MAX_WAITING)


class Duplex:
    """The requests under way over one channel; `write` sends a message, `feed` takes one that came."""

    def __init__(self, write: Callable[[Message], Awaitable[None]], *, shared: bool) -> None:
        """`shared` by several callers: then what belongs to no request in particular is nobody's."""
        self._write = write
        self._shared = shared
        self._pending: dict[Id, _Pending] = {}
        self._listener: asyncio.Queue[Message | None] | None = None
        self.closed: str | None = None
        self.dropped = 0

    async def request(self, request: Request) -> AsyncGenerator[Message, None]:
        """Send a request; yield what belongs to it, its answer last. Raises ChannelClosed."""
        self._check()
        pending = self._pending[request.id] = _Pending(_token(request.params))
        try:
            await self._write(request)
            while True:
                message = await pending.messages.get()
                if message is None:
                    raise ChannelClosed(self.closed)
                yield message
                if isinstance(message, Reply | Failure):
                    return
        finally:
            if self._pending.get(request.id) is pending:
                del self._pending[request.id]

    async def post(self, message: Notification | Reply | Failure) -> None:
        """Send what needs no answer. Raises ChannelClosed."""
        self._check()
        await self._write(message)

    async def listen(self) -> AsyncGenerator[Message, None]:
        """What belongs to no request, until the channel closes; the newest listener is the only one."""
        if self._listener is not None:
            self._put(self._listener, None)
        mine = self._listener = asyncio.Queue(_MAX_WAITING)
        try:
            while self.closed is None:
                message = await mine.get()
                if message is None:
                    return
                yield message
        finally:
            if self._listener is mine:
                self._listener = None

    def feed(self, message: Message) -> None:
        """Hand a message to whom it belongs."""
        match message:
            case Reply() | Failure():
                pending = None if message.id is None else self._pending.get(message.id)
                if pending is not None:
                    self._put(pending.messages, message)
                return
            case Notification("notifications/progress", params):
                for pending in self._pending.values():
                    if pending.token is not None and pending.token == params.get("progressToken"):
                        self._put(pending.messages, message)
                        return
        waiting = list(self._pending.values())
        of_no_call = isinstance(message, Notification) and message.method in _OF_NO_CALL
        if len(waiting) == 1 and not (of_no_call and self._listener is not None):
            self._put(waiting[-1].messages, message)
        elif self._listener is not None:
            self._put(self._listener, message)
        elif waiting and not self._shared:
            self._put(waiting[-1].messages, message)  # the client of an older one may have left
        else:
            self.dropped += 1

    def close(self, reason: str) -> None:
        """The channel is gone."""
        self.closed = self.closed or reason
        for pending in self._pending.values():
            self._end(pending.messages)
        if self._listener is not None:
            self._end(self._listener)

    def _check(self) -> None:
        if self.closed is not None:
            raise ChannelClosed(self.closed)

    def _put(self, queue: asyncio.Queue[Message | None], message: Message | None) -> None:
        try:
            queue.put_nowait(message)
        except asyncio.QueueFull:
            if not isinstance(message, Reply | Failure | None):
                self.dropped += 1
                return
            queue.get_nowait()  # an answer goes before what came earlier
            queue.put_nowait(message)

    def _end(self, queue: asyncio.Queue[Message | None]) -> None:
        self._put(queue, None)


def _token(params: Mapping[str, Any]) -> Any:
    meta = params.get("_meta")
    return meta.get("progressToken") if isinstance(meta, Mapping) else None
