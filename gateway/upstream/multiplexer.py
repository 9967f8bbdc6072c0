"""One channel that carries everything of a session: requests are told apart by their ids, the rest by what it is.

What the old SSE transport and a child's pipes have in common. A server's message that belongs to no request in
particular goes to the call under way if there is but one, else to the listener; what it asks, to the newest call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from gateway.protocol import versions
from gateway.protocol.messages import Failure, Id, Message, Notification, Reply, Request

_OF_NO_CALL = versions.LIST_CHANGES | {"notifications/resources/updated"}
_MAX_WAITING = 1000  # messages of a server that somebody has not taken yet, and
_MAX_BYTES = 8 << 20  # bytes of them
_CANCELLED = -32044


class ChannelClosed(Exception):
    """The channel is gone, and what was under way with it."""


class _Box:
    """Messages for one taker; bounded, but for an answer and the end."""

    def __init__(self, token: Any = None) -> None:
        self.token = token
        self._messages: deque[tuple[Message, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, message: Message, size: int) -> bool:
        """Take a message in; False if it was dropped."""
        full = len(self._messages) >= _MAX_WAITING or (self._messages and self._bytes + size > _MAX_BYTES)
        if full and not isinstance(message, Reply | Failure):
            return False
        self._messages.append((message, size))
        self._bytes += size
        self._changed.set()
        return True

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    async def take(self) -> Message | None:
        """The next message, None when there will be none."""
        while not self._messages:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        message, size = self._messages.popleft()
        self._bytes -= size
        return message


class Multiplexer:
    """The requests under way over one channel; `write` sends a message, `feed` takes one that came."""

    def __init__(self, write: Callable[[Message], Awaitable[None]], *, shared: bool) -> None:
        """`shared` by several callers: then messages that belong to no request are dropped."""
        self._write = write
        self._shared = shared
        self._pending: dict[Id, _Box] = {}
        self._listener: _Box | None = None
        self.closed: str | None = None
        self.dropped = 0

    async def request(self, request: Request) -> AsyncGenerator[Message, None]:
        """Send a request; yield what belongs to it, its answer last. Raises ChannelClosed."""
        self._check()
        pending = self._pending[request.id] = _Box(_token(request.params))
        try:
            await self._write(request)
            while (message := await pending.take()) is not None:
                yield message
                if isinstance(message, Reply | Failure):
                    return
            raise ChannelClosed(self.closed)
        finally:
            if self._pending.get(request.id) is pending:
                del self._pending[request.id]

    async def post(self, message: Notification | Reply | Failure) -> None:
        """Send what needs no answer. Raises ChannelClosed."""
        self._check()
        await self._write(message)

    def cancelled(self, message: Notification | Reply | Failure) -> None:
        """If this cancels a request, answer it here: the server will send no answer."""
        if isinstance(message, Notification) and message.method == "notifications/cancelled":
            id = message.params.get("requestId")
            pending = self._pending.pop(id, None) if isinstance(id, str | int) else None
            if pending is not None and isinstance(id, str | int):
                pending.put(Failure(id, _CANCELLED, "The request was cancelled by its client."), 0)

    async def listen(self) -> AsyncGenerator[Message, None]:
        """What belongs to no request, until the channel closes; the newest listener is the only one."""
        if self._listener is not None:
            self._listener.close()
        mine = self._listener = _Box()
        try:
            while self.closed is None and (message := await mine.take()) is not None:
                yield message
        finally:
            if self._listener is mine:
                self._listener = None

    def feed(self, message: Message, size: int = 0) -> None:
        """Hand a message of so many bytes to whom it belongs."""
        box = self._box_of(message)
        if box is None:
            self.dropped += not isinstance(message, Reply | Failure)
        elif not box.put(message, size):
            self.dropped += 1

    def close(self, reason: str) -> None:
        """The channel is gone."""
        self.closed = self.closed or reason
        for pending in self._pending.values():
            pending.close()
        if self._listener is not None:
            self._listener.close()

    def _box_of(self, message: Message) -> _Box | None:
        match message:
            case Reply() | Failure():
                return None if message.id is None else self._pending.get(message.id)
            case Notification("notifications/progress", params):
                token = params.get("progressToken")
                for pending in self._pending.values():
                    if pending.token is not None and pending.token == token:
                        return pending
        waiting = list(self._pending.values())
        of_no_call = isinstance(message, Notification) and message.method in _OF_NO_CALL
        if len(waiting) == 1 and not (of_no_call and self._listener is not None):
            return waiting[0]
        if isinstance(message, Request) and waiting and not self._shared:
            return waiting[-1]  # its client is the likeliest to be there: who left an older call, or its own stream
        if self._listener is not None:
            return self._listener
        return waiting[-1] if waiting and not self._shared else None

    def _check(self) -> None:
        if self.closed is not None:
            raise ChannelClosed(self.closed)


def _token(params: Mapping[str, Any]) -> Any:
    meta = params.get("_meta")
    return meta.get("progressToken") if isinstance(meta, Mapping) else None
