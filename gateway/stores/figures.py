"""The last hour of all replicas' calls, and which workers there are, in Redis: a ring of slots of ten seconds.

Each worker adds what it counted to the slot of that moment, and writes a line about itself, every few seconds. Slots
and lines expire by themselves. Without Redis nothing is kept, and nothing is slower.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from gateway.observability.ring import Ring
from gateway.stores.redis import Redis, RedisUnavailable

SLOT_SECONDS = 10
SLOTS = 360
_FLUSH_SECONDS = 2.5
_DEAD_SECONDS = 12.0
_READ_SECONDS = 5.0

Slot = Mapping[str, list[int]]
"""A server's counts (`observability/ring`), by its name."""


class Figures:
    """One worker's part of the ring, and the reader of all of it."""

    def __init__(self, redis: Redis, worker: str, ring: Ring, about: Callable[[], Mapping[str, Any]]) -> None:
        """`about` is what this worker says of itself."""
        self._redis = redis
        self._worker = worker
        self._ring = ring
        self._about = about

    async def run(self) -> None:
        """Add what was counted, again and again, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                await self.flush()
            except RedisUnavailable:
                pass  # the counts of this moment are lost

    async def flush(self) -> None:
        """Add what was counted to the slot of this moment. Raises RedisUnavailable."""
        now = time.time()
        counts, key = self._ring.take(), self._slot_key(int(now) // SLOT_SECONDS)
        line = orjson.dumps({**self._about(), "at": now})
        workers = self._redis.key("about workers")

        async def work(store: Any) -> None:
            async with store.pipeline(transaction=False) as pipe:
                pipe.hset(workers, self._worker, line)
                pipe.expire(workers, int(4 * _DEAD_SECONDS))
                for server, values in counts.items():
                    for place, value in enumerate(values):
                        if value:
                            pipe.hincrby(key, f"{place} {server}", value)
                if counts:
                    pipe.expire(key, SLOT_SECONDS * (SLOTS + 2))
                await pipe.execute()

        await self._redis.do(work)

    async def read(self, first: int, last: int) -> list[tuple[int, Slot]]:
        """The slots from `first` to `last` that have anything, with their numbers. Raises RedisUnavailable."""
        numbers = range(max(first, last - SLOTS + 1), last + 1)

        async def work(store: Any) -> Sequence[Mapping[bytes, bytes]]:
            async with store.pipeline(transaction=False) as pipe:
                for number in numbers:
                    pipe.hgetall(self._slot_key(number))
                found: Sequence[Mapping[bytes, bytes]] = await pipe.execute()
                return found

        rows = await self._redis.do(work, _READ_SECONDS, bulk=True)
        return [(number, _slot(row)) for number, row in zip(numbers, rows, strict=True) if row]

    async def workers(self) -> list[dict[str, Any]]:
        """What the workers that live said of themselves, in the order of their names. Raises RedisUnavailable."""
        rows = await self._redis.do(lambda store: store.hgetall(self._redis.key("about workers")))
        found = [orjson.loads(line) for line in rows.values()]
        now = time.time()
        live = [each for each in found if now - each["at"] < _DEAD_SECONDS]
        return sorted(live, key=lambda each: (str(each.get("replica")), str(each.get("worker"))))

    def _slot_key(self, number: int) -> str:
        return self._redis.key("figures", str(number))


def _slot(row: Mapping[bytes, bytes]) -> dict[str, list[int]]:
    """A slot as it is stored, as counts by server."""
    found: dict[str, list[int]] = {}
    for name, value in row.items():
        place, _, server = name.decode().partition(" ")
        counts = found.setdefault(server, [])
        counts += [0] * (int(place) + 1 - len(counts))
        counts[int(place)] = int(value)
    return found
