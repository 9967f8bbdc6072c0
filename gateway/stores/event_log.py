"""Event streams on record, so that any replica can go on with a stream that was cut (MCP 2025-11-25, transports,
resumability and redelivery).

States of a stream: *open* (its worker sends and records), *ended* (its last entry says so), *expired* (Redis dropped
it after GATEWAY_RESUME_SECONDS). Entry 0 says who sends it, for which session, and which requests it will answer;
entries 1, 2, … are its events. An event's id is the stream's id and that number, which the sending worker counts by
itself: so recording trails sending, and costs the sender nothing but a place in a queue (`put`); `write` empties it.

Who may write: only the worker that began a stream, since an entry's id in Redis is fixed by its number. XADD of an id
that is there, or is older than the newest, fails harmlessly: an entry written twice after a timeout is there once.
One other may write: a worker that resumes a stream whose own worker is dead (no heartbeat for 5 s, looked at again
for 3 s) adds "outcome unknown" for each request that has no answer yet and ends the stream. Should the worker have
lived after all, its entries are refused from then on; should two see it at once, the second one's entries are
refused.

What could not be recorded shows as a gap, never as silence: entries beyond the bound of what waits are dropped, and
the stream gets an end entry with a number far above. A reader that finds a number missing gets EventUnknown. Without
Redis nothing can be resumed; what waits is written when it answers again, up to the bound.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.errors import EventUnknown, OutcomeUnknown
from gateway.protocol.messages import Failure, Id, encode
from gateway.stores.redis import Redis, RedisUnavailable
from gateway.stores.streams import Streams, order

_ID = re.compile(r"([0-9a-f]{24})_([0-9]{1,9})")
_MAX_WAITING = 64 << 20  # bytes not yet recorded, at one worker
_FLUSH = 200  # entries written at once
_FLUSH_SECONDS = 2.0
_AGAIN_SECONDS = 0.5
_GAP = 10**9  # the number of an entry that says that those before it are missing
_GONE_SECONDS = 3.0
_FIRST_TRIES, _FIRST_PAUSE = 20, 0.05  # a stream may be resumed before its record is written

log = logging.getLogger("gateway.event_log")

_Entry = tuple[str, str, dict[str, Any], int, list[str]]


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of one stream (in bytes), and for how long (in seconds)."""

    stream_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream on record: the number of the event it was found by, who sends it, which requests it answers."""

    stream: str
    number: int
    owner: str
    pending: Sequence[Id]
    own: bool


class Recording:
    """One stream being sent by this worker."""

    def __init__(self, log: EventLog, id: str, session: str, pending: Sequence[Id], own: bool) -> None:
        self._log = log
        self._number = 0
        self._sizes: list[tuple[int, int]] = []
        self._held = 0
        self._pending = list(pending)
        self._ended = False
        self.id = id
        self._put({"o": log.worker, "s": session, "q": orjson.dumps([own, list(pending)])})

    @property
    def first(self) -> str:
        """The id of the event that comes before all others (`priming`)."""
        return f"{self.id}_0"

    def event(self, payload: bytes, answers: Id | None = None) -> str:
        """Record an event's data, and which of the pending requests it answers; return its id."""
        self._number += 1
        if answers in self._pending:
            self._pending.remove(answers)
        self._put({"d": payload} | ({} if answers is None else {"g": orjson.dumps(answers)}), len(payload))
        return f"{self.id}_{self._number}"

    def end(self) -> None:
        """No event comes any more; a request that has no answer yet is answered: its outcome is unknown."""
        if self._ended:
            return
        self._ended = True
        for id in list(self._pending):
            self.event(_unanswered(id), id)
        self._number += 1
        self._put({"e": b""})

    def _put(self, fields: dict[str, Any], size: int = 0) -> None:
        if size:
            self._sizes.append((self._number, size))
            self._held += size
        trimmed = []
        while self._held > self._log.retention.stream_bytes and len(self._sizes) > 1:
            number, freed = self._sizes.pop(0)
            self._held -= freed
            trimmed.append(f"{number}-1")
        self._log.put(self.id, f"{self._number}-1", fields, size, trimmed)


class EventLog:
    """This worker's recordings, and its way into those of others."""

    def __init__(self, redis: Redis, streams: Streams, worker: str, retention: Retention) -> None:
        self._redis = redis
        self._streams = streams
        self._queue: deque[_Entry] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._broken: set[str] = set()
        self._missing: dict[str, float] = {}
        self.worker = worker
        self.retention = retention
        self.dropped = 0

    @property
    def unwritten(self) -> int:
        """Entries that are not recorded yet."""
        return len(self._queue)

    def begin(self, session: str, pending: Sequence[Id] = (), *, own: bool = False) -> Recording:
        """Begin a stream of a session; `pending` are the requests that it will answer, `own` is the stream of a GET."""
        return Recording(self, os.urandom(12).hex(), session, pending, own)

    def put(self, stream: str, id: str, fields: dict[str, Any], size: int, trimmed: list[str]) -> None:
        """Take an entry for recording, soon; beyond the bound it is dropped, which shows as a gap."""
        if self._waiting > _MAX_WAITING or stream in self._broken:
            self.dropped += 1
            self._broken.add(stream)
            return
        self._waiting += size
        self._queue.append((stream, id, fields, size, trimmed))
        self._wake.set()

    async def write(self) -> None:
        """Record what waits, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(_FLUSH, len(self._queue)))]
                self._waiting -= sum(entry[3] for entry in batch)
                try:
                    await self._redis.do(self._storing(batch), _FLUSH_SECONDS)
                except RedisUnavailable:
                    self._queue.extendleft(reversed(batch))  # entry ids are fixed: an entry written twice is there once
                    self._waiting += sum(entry[3] for entry in batch)
                    await asyncio.sleep(_AGAIN_SECONDS)
            while self._broken:
                stream = self._broken.pop()
                self._queue.append((stream, f"{_GAP}-1", {"e": b""}, 0, []))
                self._wake.set()

    def _storing(self, batch: list[_Entry]) -> Callable[[Any], Awaitable[None]]:
        return lambda store: self._store(store, batch)

    async def _store(self, store: Any, batch: list[_Entry]) -> None:
        async with store.pipeline(transaction=False) as pipe:
            for stream, id, fields, _, trimmed in batch:
                pipe.xadd(self._streams.key(stream), fields, id=id)
                if trimmed:
                    pipe.xdel(self._streams.key(stream), *trimmed)
            for stream in {entry[0] for entry in batch}:
                pipe.expire(self._streams.key(stream), int(self.retention.seconds))
            await pipe.execute(raise_on_error=False)  # a stream closed by another (we seemed dead) takes no more

    async def find(self, session: str, after: str) -> StoredStream:
        """A session's stream, by an event of it. Raises EventUnknown or RedisUnavailable."""
        if (match := _ID.fullmatch(after)) is None:
            raise EventUnknown("no such event id was given out here")
        stream = match[1]
        for _ in range(_FIRST_TRIES):
            found = await self._redis.do(lambda store: store.xrange(self._streams.key(stream), "0-1", "0-1"))
            if found:
                fields = found[0][1]
                if fields[b"s"].decode() != session:
                    break
                newest = await self._redis.do(lambda store: store.xrevrange(self._streams.key(stream), count=1))
                if int(match[2]) > order(newest[0][0].decode())[0]:
                    await asyncio.sleep(_FIRST_PAUSE)
                    continue  # recording trails sending
                own, pending = orjson.loads(fields[b"q"])
                return StoredStream(stream, int(match[2]), fields[b"o"].decode(), pending, own)
            await asyncio.sleep(_FIRST_PAUSE)
        raise EventUnknown("this stream is not on record (any more)")

    async def resume(self, found: StoredStream) -> AsyncGenerator[tuple[str, bytes], None]:
        """The events of a stream after the one it was found by, with their ids; ends where the stream does.

        Raises EventUnknown when events were dropped, RedisUnavailable.
        """
        number, pending = found.number, list(found.pending)

        async def check(last: str) -> None:
            await self._close_orphaned_stream(found.stream, last, found.owner, pending)

        async with aclosing(self._streams.follow(found.stream, f"{number}-1", check)) as entries:
            async for id, fields in entries:
                at = int(id.partition("-")[0])
                if at != number + 1:
                    raise EventUnknown("events after this one were dropped, so the stream would have a gap")
                number = at
                if b"e" in fields:
                    return
                if b"g" in fields:
                    pending = [each for each in pending if each != orjson.loads(fields[b"g"])]
                yield f"{found.stream}_{number}", fields[b"d"]

    async def _close_orphaned_stream(self, stream: str, last: str, owner: str, pending: list[Id]) -> None:
        """If the stream's worker died, say what became of its requests, and end it; the first to see it does."""
        if owner == self.worker or await self._redis.lives(owner):
            self._missing.pop(owner, None)
            return
        now = asyncio.get_running_loop().time()
        if now - self._missing.setdefault(owner, now) < _GONE_SECONDS:
            return  # its heartbeat may have gone with a restart of Redis, and come back
        number = int(last.partition("-")[0])
        key = self._streams.key(stream)

        async def close(store: Any) -> None:
            # answers before the place where the stream is read from are no longer pending either
            answered = [orjson.loads(fields[b"g"]) for _, fields in await store.xrange(key) if b"g" in fields]
            unanswered = [id for id in pending if id not in answered]
            async with store.pipeline() as pipe:
                for place, id in enumerate(unanswered, number + 1):
                    pipe.xadd(key, {"d": _unanswered(id), "g": orjson.dumps(id)}, id=f"{place}-1")
                pipe.xadd(key, {"e": b""}, id=f"{number + len(unanswered) + 1}-1")
                await pipe.execute(raise_on_error=False)

        log.warning("closing a stream of worker %s, which is gone", owner)
        await self._redis.do(close)
        self._missing.pop(owner, None)


def _unanswered(id: Id) -> bytes:
    """What a client is told of a call whose worker was lost, or failed."""
    detail = "Outcome unknown: the worker with this call was lost; it may have been carried out."
    return encode(Failure(id, OutcomeUnknown.code, detail))
