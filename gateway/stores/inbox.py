"""What one worker sends another through Redis: errands into its inbox, and replies on a stream of the asker's own.

An inbox is a list, read by the worker that it names; it is gone a while after the last errand. A reply stream is
bounded: when its reader does not keep up, `append` says so, and the writer gives up.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

from gateway.stores.redis import Redis
from gateway.stores.streams import Fields, Streams

_WAIT_SECONDS = 0.5
_BLOCK_EXTRA = 2.0
_KEPT_SECONDS = 30  # of an unread inbox
_ADD_SECONDS = 2.0
_KEPT = 1000  # entries of a reply stream, and
_KEPT_BYTES = 64 << 20  # bytes of it, that wait for its reader


class Inbox:
    """Errands to other workers, and streams of replies that any worker adds to."""

    def __init__(self, redis: Redis, streams: Streams, seconds: float) -> None:
        """`seconds` is how long a reply stream is kept after the last entry."""
        self._redis = redis
        self._streams = streams
        self._seconds = seconds

    async def push(self, worker: str, errand: bytes) -> None:
        """Put an errand into a worker's inbox. Raises RedisUnavailable."""
        key = self._redis.key("inbox", worker)

        async def put(store: Any) -> None:
            async with store.pipeline() as pipe:
                pipe.rpush(key, errand)
                pipe.expire(key, _KEPT_SECONDS)
                await pipe.execute()

        await self._redis.do(put)

    async def next(self, workers: Iterable[str]) -> bytes | None:
        """The next errand for one of these workers, or None if none comes for a moment. Raises RedisUnavailable."""
        keys = [self._redis.key("inbox", worker) for worker in workers]
        found = await self._redis.do(lambda store: store.blpop(keys, timeout=_WAIT_SECONDS), _BLOCK_EXTRA)
        return None if found is None else found[1]

    async def append(self, stream: str, payload: bytes, field: bytes = b"d") -> bool:
        """Add to a reply stream; False if more waits there than may.

        Raises RedisUnavailable.
        """
        key, size = self._streams.key(stream), self._streams.key(f"{stream}-size")

        async def add(store: Any) -> bool:
            async with store.pipeline(transaction=False) as pipe:
                pipe.xadd(key, {field: payload})
                pipe.xlen(key)
                pipe.incrby(size, len(payload))
                pipe.expire(key, int(self._seconds))
                pipe.expire(size, int(self._seconds))
                _, waiting, held, *_ = await pipe.execute()
            return int(waiting) <= _KEPT and int(held) <= _KEPT_BYTES + len(payload)

        kept: bool = await self._redis.do(add, _ADD_SECONDS)
        return kept

    async def consumed(self, stream: str, id: str, size: int) -> None:
        """Drop an entry that was read and passed on. Raises RedisUnavailable."""
        key, held = self._streams.key(stream), self._streams.key(f"{stream}-size")

        async def drop(store: Any) -> None:
            async with store.pipeline(transaction=False) as pipe:
                pipe.xdel(key, id)
                pipe.decrby(held, size)
                await pipe.execute()

        await self._redis.do(drop)

    def follow(
        self, stream: str, check: Callable[[str], Any] | None = None
    ) -> AsyncGenerator[tuple[str, Fields], None]:
        """The entries of a reply stream as they come; `check` is awaited when none came for a second."""
        return self._streams.follow(stream, "0-0", check)
