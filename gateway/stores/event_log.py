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

What could not be recorded shows as a gap, never as silence: entries beyond a bound (of what waits at a worker, of what
one principal has on record) and those that Redis refuses (it is full, or a replica) are dropped, and the stream gets an
end entry with a number far above, as soon as Redis takes that. A reader that finds a number missing gets EventUnknown.
Without Redis nothing can be resumed; what waits is written when it answers again, up to the bound.

A batch is bounded in entries and bytes, and halved each time that it is not written in time; an entry that can't be
written alone, while Redis takes writes, is given up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.errors import EventUnknown, OutcomeUnknown
from gateway.protocol.messages import Failure, Id, encode
from gateway.stores.ledger import Ledger
from gateway.stores.redis import Redis, RedisUnavailable, raise_if_replica
from gateway.stores.streams import Streams, order

_ID = re.compile(r"([0-9a-f]{24})_([0-9]{1,9})")
_MAX_WAITING = 64 << 20  # bytes not yet recorded, at one worker
_FLUSH = 200  # entries written at once
_FLUSH_BYTES = 4 << 20
_FLUSH_SECONDS = 2.0
_AGAIN_SECONDS = 0.5
_REFUSED_SECONDS = 2.0
_TRIES = 4  # of an entry alone
_ENTRY_BYTES = 200  # that an entry takes beside its fields
_GAP = 10**9  # the number of an entry that says that those before it are missing
_GONE_SECONDS = 3.0
_FIRST_TRIES, _FIRST_PAUSE = 20, 0.05  # a stream may be resumed before its record is written

log = logging.getLogger("gateway.event_log")


@dataclass(slots=True)  # not frozen, as what is made for each event: that takes three times as long
class _Entry:
    """An entry to be recorded: its stream, its id there, its fields and its size, and which entries go for it."""

    stream: str
    id: str
    fields: dict[str, Any]
    size: int
    trimmed: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of one stream (in bytes), for how long (in seconds), and of a principal's streams at one worker."""

    stream_bytes: int
    seconds: float
    principal_bytes: int = 256 << 20


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

    def __init__(self, log: EventLog, id: str, session: str, principal: str, pending: Sequence[Id], own: bool) -> None:
        self._log = log
        self._principal = principal
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
        fields: dict[str, Any] = {"d": payload}
        if answers is not None:
            fields["g"] = orjson.dumps(answers)
        self._put(fields, len(payload))
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

    def _put(self, fields: dict[str, Any], payload: int = 0) -> None:
        if payload:
            self._sizes.append((self._number, payload))
            self._held += payload
        trimmed = []
        while self._held > self._log.retention.stream_bytes and len(self._sizes) > 1:
            number, freed = self._sizes.pop(0)
            self._held -= freed
            trimmed.append(f"{number}-1")
        size = _ENTRY_BYTES + sum(map(len, fields.values()))
        self._log.put(_Entry(self.id, f"{self._number}-1", fields, size, trimmed), self._principal)


class EventLog:
    """This worker's recordings, and its way into those of others."""

    def __init__(self, redis: Redis, streams: Streams, worker: str, retention: Retention) -> None:
        self._redis = redis
        self._streams = streams
        self._queue: deque[_Entry] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._broken: dict[str, float] = {}  # streams with a gap that is not on record, and until when that matters
        self._batch = _FLUSH
        self._tries = 0
        self._ledger = Ledger(retention.seconds, time.monotonic)
        self.trouble: str | None = None
        self._missing: dict[str, float] = {}
        self.worker = worker
        self.retention = retention
        self.dropped = 0

    @property
    def unwritten(self) -> int:
        """Entries that are not recorded yet."""
        return len(self._queue)

    def begin(self, session: str, pending: Sequence[Id] = (), *, principal: str = "", own: bool = False) -> Recording:
        """Begin a stream of a principal's session; `pending` are the requests that it will answer.

        `own` is the stream of a GET.
        """
        return Recording(self, os.urandom(12).hex(), session, principal, pending, own)

    def put(self, entry: _Entry, principal: str) -> None:
        """Take an entry for recording, soon; beyond a bound it is dropped, which shows as a gap."""
        held = self._ledger.held(principal) if "e" not in entry.fields else 0
        if (
            entry.stream in self._broken
            or self._waiting + entry.size > _MAX_WAITING
            or held + entry.size > self.retention.principal_bytes
        ):
            self._drop(entry.stream)
            return
        self._ledger.charge(principal, entry.size)
        self._add(entry)

    def _drop(self, stream: str) -> None:
        self.dropped += 1
        self._broken.setdefault(stream, time.monotonic() + self.retention.seconds)
        self._wake.set()

    def _add(self, entry: _Entry) -> None:
        self._waiting += entry.size
        self._queue.append(entry)
        self._wake.set()

    async def write(self) -> None:
        """Record what waits, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._write(self._next())
            broken, now = self._broken, time.monotonic()
            if gaps := [stream for stream, until in broken.items() if now < until]:
                self._broken = {}
                refused = await self._write([_Entry(stream, f"{_GAP}-1", {"e": b""}, 0) for stream in gaps])
                self._broken |= {stream: broken[stream] for stream in refused}
                if refused:
                    self._wake.set()

    def _next(self) -> list[_Entry]:
        """The entries that are written together next."""
        batch: list[_Entry] = []
        size = 0
        while self._queue and len(batch) < self._batch:
            size += self._queue[0].size
            if batch and size > _FLUSH_BYTES:
                break
            batch.append(self._queue.popleft())
        self._waiting -= sum(entry.size for entry in batch)
        return batch

    async def _write(self, batch: list[_Entry]) -> Collection[str]:
        """Write some entries; return the streams of which some were not taken, which are marked as broken."""
        try:
            refused: dict[str, str] = await self._redis.do(lambda store: self._store(store, batch), _FLUSH_SECONDS)
        except RedisUnavailable:
            await self._put_off(batch)
            return ()
        self._batch, self._tries = min(_FLUSH, 2 * self._batch), 0
        for stream in refused:
            self._drop(stream)
        trouble = next(iter(refused.values()), None)
        if trouble != self.trouble:
            log.warning("Redis refuses recordings: %s", trouble) if trouble else log.info(
                "Redis takes recordings again"
            )
        self.trouble = trouble
        if refused:
            await asyncio.sleep(_REFUSED_SECONDS)
        return refused

    async def _put_off(self, batch: list[_Entry]) -> None:
        """Write later what was not written in time, fewer at once; give up one that can't be written alone."""
        self._batch = max(1, len(batch) // 2)
        self._tries += len(batch) == 1
        if self._tries >= _TRIES and await self._redis.takes_writes():
            log.warning("an event of %d bytes could not be recorded", batch[0].size)
            self._tries = 0
            self._drop(batch[0].stream)
            return
        self._queue.extendleft(reversed(batch))  # entry ids are fixed: an entry written twice is there once
        self._waiting += sum(entry.size for entry in batch)
        await asyncio.sleep(_AGAIN_SECONDS)
        self._wake.set()

    async def _store(self, store: Any, batch: list[_Entry]) -> dict[str, str]:
        """Write entries; return why Redis refused some, by stream."""
        async with store.pipeline(transaction=False) as pipe:
            for entry in batch:
                pipe.xadd(self._streams.key(entry.stream), entry.fields, id=entry.id)
                if entry.trimmed:
                    pipe.xdel(self._streams.key(entry.stream), *entry.trimmed)
            for stream in {entry.stream for entry in batch}:
                pipe.expire(self._streams.key(stream), int(self.retention.seconds))
            answers = iter(await pipe.execute(raise_on_error=False))
        refused = {}
        for entry in batch:
            answer = next(answers)
            if entry.trimmed:
                next(answers)
            raise_if_replica(answer)
            # a stream closed by another (we seemed dead) takes no more, and an entry written twice is there once
            if isinstance(answer, Exception) and "equal or smaller" not in str(answer):
                refused[entry.stream] = str(answer)[:200]
        return refused

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
