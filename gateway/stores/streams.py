"""Redis streams, followed: a reader gets each entry as it is added.

However many streams a worker follows, they are read over one connection (`run`), which blocks on all of them at once.
A follower that is slow is read ahead for, up to a bound, and then left out until it has caught up.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from gateway.stores.redis import Redis, RedisUnavailable

_BLOCK_MS = 200
_BULK_SECONDS = 10.0
_READ_AT_ONCE = 8  # entries of a stream: each may be as large as a result may be
_MAX_AHEAD = 8 << 20  # bytes read for a client that takes them slower

Fields = dict[bytes, bytes]


@dataclass(slots=True)
class _Tail:
    last: str
    found: deque[tuple[str, Fields]]
    changed: asyncio.Event
    ahead: int = 0


class Streams:
    """This worker's followers, and the loop that reads for them."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._tails: dict[str, _Tail] = {}
        self._tailing = asyncio.Event()

    def key(self, stream: str) -> str:
        """The key of a stream in Redis."""
        return self._redis.key("stream", stream)

    async def follow(
        self, stream: str, last: str, check: Callable[[str], Any] | None = None
    ) -> AsyncGenerator[tuple[str, Fields], None]:
        """Entries of a stream after `last` as they come; `check` is awaited when none came for a second."""
        key = self.key(stream)
        while found := await self._redis.do(_range(key, last), _BULK_SECONDS, bulk=True):
            for id, fields in found:
                last = id.decode()
                yield last, fields
        mine = f"{key} {os.urandom(4).hex()}"
        tail = self._tails[mine] = _Tail(last, deque(), asyncio.Event())
        self._tailing.set()
        try:
            while True:
                try:
                    async with asyncio.timeout(1.0):
                        await tail.changed.wait()
                except TimeoutError:
                    if check is not None:
                        await check(last)
                    continue
                tail.changed.clear()
                while tail.found:
                    last, fields = tail.found.popleft()
                    tail.ahead -= size_of(fields)
                    yield last, fields
        finally:
            del self._tails[mine]

    async def run(self) -> None:
        """Read for all that follow a stream, until cancelled: one connection, whatever their number."""
        while True:
            if not self._tails:
                self._tailing.clear()
                await self._tailing.wait()
            wanted: dict[str, str] = {}
            for name, tail in self._tails.items():
                if tail.ahead < _MAX_AHEAD:
                    key = name.partition(" ")[0]
                    wanted[key] = min(wanted.get(key, tail.last), tail.last, key=order)
            if not wanted:
                await asyncio.sleep(_BLOCK_MS / 1000)
                continue
            try:
                found = await self._redis.do(_reading(wanted), _BULK_SECONDS, bulk=True)
            except RedisUnavailable:
                await asyncio.sleep(1)
                continue
            for key, entries in found or ():
                self._hand_out(key.decode(), wanted[key.decode()], entries)

    def _hand_out(self, key: str, after: str, entries: list[tuple[bytes, Fields]]) -> None:
        """Give the entries of a stream after `after` to its followers.

        One that joined meanwhile, or was left out, and stands before that place would miss what lies between: it
        waits for the next read, which begins with it.
        """
        for name, tail in self._tails.items():
            if name.partition(" ")[0] != key or order(tail.last) < order(after):
                continue
            for id, fields in entries:
                if order(id.decode()) > order(tail.last):
                    tail.last = id.decode()
                    tail.found.append((tail.last, fields))
                    tail.ahead += size_of(fields)
                    tail.changed.set()


def _range(key: str, after: str) -> Callable[[Any], Awaitable[Any]]:
    return lambda store: store.xrange(key, f"({after}", "+", count=_READ_AT_ONCE)


def _reading(wanted: dict[str, str]) -> Callable[[Any], Awaitable[Any]]:
    return lambda store: store.xread(wanted, count=_READ_AT_ONCE, block=_BLOCK_MS)


def size_of(fields: Fields) -> int:
    """The bytes of an entry's values."""
    return sum(map(len, fields.values()))


def order(id: str) -> tuple[int, int]:
    """An entry's id as Redis orders them."""
    high, _, low = id.partition("-")
    return int(high), int(low)
