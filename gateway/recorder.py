"""Streams on record, so that any replica can go on with them: events out, events since, and the end of those whose
worker died.

An event's id is the stream's and a counter of the worker that sends it, so recording trails sending and costs the
sender nothing; what could not be recorded shows as a gap, never as silence. Source: MCP 2025-11-25, transports,
resumability.
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
from gateway.records import Records, RecordsUnavailable

_ID = re.compile(r"([0-9a-f]{24})_([0-9]{1,9})")
_MAX_WAITING = 64 << 20  # bytes not yet recorded, at one worker
_FLUSH = 200
_FLUSH_SECONDS = 2.0
_AGAIN_SECONDS = 0.5
_GAP = 10**9  # the number of an entry that says that those before it are missing
_BEAT_SECONDS = 1.5
_DEAD_SECONDS = 5.0
_GONE_SECONDS = 3.0
_BLOCK_MS = 200
_BULK_SECONDS = 10.0
_READ_AT_ONCE = 8  # entries of a stream: each may be as large as a result may be
_MAX_AHEAD = 8 << 20  # bytes read for a client that takes them slower
_KEPT = 1000  # entries of a stream that any worker adds to, and
_KEPT_BYTES = 64 << 20  # bytes of it, that wait for its reader
_FIRST_TRIES, _FIRST_PAUSE = 20, 0.05  # a stream may be resumed before its record is written

log = logging.getLogger("gateway.recorder")


_Entry = tuple[str, str, dict[str, Any], int, list[str]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is kept of one stream (in bytes), and for how long (in seconds)."""

    stream_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Found:
    """A stream on record: the number of the event it was found by, who sends it, which requests it answers."""

    stream: str
    number: int
    owner: str
    pending: Sequence[Id]
    own: bool


class Recording:
    """One stream being sent by this worker."""

    def __init__(self, recorder: Recorder, id: str, session: str, pending: Sequence[Id], own: bool) -> None:
        self._recorder = recorder
        self._number = 0
        self._sizes: deque[tuple[int, int]] = deque()
        self._held = 0
        self._pending = list(pending)
        self._ended = False
        self.id = id
        self._put({"o": recorder.worker, "s": session, "q": orjson.dumps([own, list(pending)])})

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
        while self._held > self._recorder.bounds.stream_bytes and len(self._sizes) > 1:
            number, freed = self._sizes.popleft()
            self._held -= freed
            trimmed.append(f"{number}-1")
        self._recorder.put(self.id, f"{self._number}-1", fields, size, trimmed)


@dataclass(slots=True)
class _Tail:
    last: str
    found: deque[tuple[str, dict[bytes, bytes]]]
    changed: asyncio.Event
    ahead: int = 0


class Recorder:
    """This worker's recordings, and its way into those of others."""

    def __init__(self, records: Records, worker: str, bounds: Bounds) -> None:
        self._records = records
        self._queue: deque[_Entry] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._broken: set[str] = set()
        self._missing: dict[str, float] = {}
        self._tails: dict[str, _Tail] = {}
        self._tailing = asyncio.Event()
        self.worker = worker
        self.bounds = bounds
        self.dropped = 0

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

    async def append(self, stream: str, payload: bytes, field: bytes = b"d") -> bool:
        """Add to a stream that any worker adds to, now; False if more waits there than may.

        Raises RecordsUnavailable.
        """
        key, size = self._key(stream), self._key(f"{stream}-size")

        async def add(store: Any) -> bool:
            async with store.pipeline(transaction=False) as pipe:
                pipe.xadd(key, {field: payload})
                pipe.xlen(key)
                pipe.incrby(size, len(payload))
                pipe.expire(key, int(self.bounds.seconds))
                pipe.expire(size, int(self.bounds.seconds))
                _, waiting, held, *_ = await pipe.execute()
            return int(waiting) <= _KEPT and int(held) <= _KEPT_BYTES + len(payload)

        kept: bool = await self._records.do(add, _FLUSH_SECONDS)
        return kept

    async def consumed(self, stream: str, id: str, size: int) -> None:
        """Drop an entry that was sent. Raises RecordsUnavailable."""
        key, held = self._key(stream), self._key(f"{stream}-size")

        async def drop(store: Any) -> None:
            async with store.pipeline(transaction=False) as pipe:
                pipe.xdel(key, id)
                pipe.decrby(held, size)
                await pipe.execute()

        await self._records.do(drop)

    async def write(self) -> None:
        """Record what waits, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(_FLUSH, len(self._queue)))]
                self._waiting -= sum(entry[3] for entry in batch)
                try:
                    await self._records.do(self._storing(batch), _FLUSH_SECONDS)
                except RecordsUnavailable:
                    self._queue.extendleft(reversed(batch))  # their ids are their own: twice is once
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
                pipe.xadd(self._key(stream), fields, id=id)
                if trimmed:
                    pipe.xdel(self._key(stream), *trimmed)
            for stream in {entry[0] for entry in batch}:
                pipe.expire(self._key(stream), int(self.bounds.seconds))
            await pipe.execute(raise_on_error=False)  # a stream closed by another (we seemed dead) takes no more

    async def beat(self, *others: str) -> None:
        """Say that this worker lives, and what it speaks for, until cancelled."""
        while True:
            try:
                for each in (self.worker, *others):
                    await self._records.beat(each, _DEAD_SECONDS)
            except RecordsUnavailable:
                pass
            await asyncio.sleep(_BEAT_SECONDS)

    async def find(self, session: str, after: str) -> Found:
        """A session's stream, by an event of it. Raises EventUnknown or RecordsUnavailable."""
        if (match := _ID.fullmatch(after)) is None:
            raise EventUnknown("no such event id was given out here")
        stream = match[1]
        for _ in range(_FIRST_TRIES):
            found = await self._records.do(lambda store: store.xrange(self._key(stream), "0-1", "0-1"))
            if found:
                fields = found[0][1]
                if fields[b"s"].decode() != session:
                    break
                newest = await self._records.do(lambda store: store.xrevrange(self._key(stream), count=1))
                if int(match[2]) > _order(newest[0][0].decode())[0]:
                    await asyncio.sleep(_FIRST_PAUSE)
                    continue  # recording trails sending
                own, pending = orjson.loads(fields[b"q"])
                return Found(stream, int(match[2]), fields[b"o"].decode(), pending, own)
            await asyncio.sleep(_FIRST_PAUSE)
        raise EventUnknown("this stream is not on record (any more)")

    async def resume(self, found: Found) -> AsyncGenerator[tuple[str, bytes], None]:
        """The events of a stream after the one it was found by, with their ids; ends where the stream does.

        Raises EventUnknown when events were dropped, RecordsUnavailable.
        """
        number, pending = found.number, list(found.pending)

        async def check(last: str) -> None:
            await self._bury(found.stream, last, found.owner, pending)

        async with aclosing(self.follow(found.stream, f"{number}-1", check)) as entries:
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

    async def follow(
        self, stream: str, last: str, check: Callable[[str], Any] | None = None
    ) -> AsyncGenerator[tuple[str, dict[bytes, bytes]], None]:
        """Entries of a stream after `last` as they come; `check` is awaited when none came for a second."""
        key = self._key(stream)
        while found := await self._records.do(_range(key, last), _BULK_SECONDS, bulk=True):
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
                    tail.ahead -= _size(fields)
                    yield last, fields
        finally:
            del self._tails[mine]

    async def tail(self) -> None:
        """Read for all that follow a stream, until cancelled: one connection, whatever their number."""
        while True:
            if not self._tails:
                self._tailing.clear()
                await self._tailing.wait()
            wanted: dict[str, str] = {}
            for name, tail in self._tails.items():
                if tail.ahead < _MAX_AHEAD:
                    key = name.partition(" ")[0]
                    wanted[key] = min(wanted.get(key, tail.last), tail.last, key=_order)
            if not wanted:
                await asyncio.sleep(_BLOCK_MS / 1000)
                continue
            try:
                found = await self._records.do(_reading(wanted), _BULK_SECONDS, bulk=True)
            except RecordsUnavailable:
                await asyncio.sleep(1)
                continue
            for key, entries in found or ():
                self._hand_out(key.decode(), entries)

    def _hand_out(self, key: str, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        for name, tail in self._tails.items():
            if name.partition(" ")[0] != key:
                continue
            for id, fields in entries:
                if _order(id.decode()) > _order(tail.last):
                    tail.last = id.decode()
                    tail.found.append((tail.last, fields))
                    tail.ahead += _size(fields)
                    tail.changed.set()

    async def _bury(self, stream: str, last: str, owner: str, pending: list[Id]) -> None:
        """If the stream's worker died, say what became of its requests, and end it; the first to see it does."""
        if owner == self.worker or await self._records.lives(owner):
            self._missing.pop(owner, None)
            return
        now = asyncio.get_running_loop().time()
        if now - self._missing.setdefault(owner, now) < _GONE_SECONDS:
            return  # its heartbeat may have gone with a restart of Redis, and come back
        number = int(last.partition("-")[0])
        key = self._key(stream)

        async def close(store: Any) -> None:
            async with store.pipeline() as pipe:
                for place, id in enumerate(pending, number + 1):
                    pipe.xadd(key, {"d": _unanswered(id)}, id=f"{place}-1")
                pipe.xadd(key, {"e": b""}, id=f"{number + len(pending) + 1}-1")
                await pipe.execute(raise_on_error=False)

        log.warning("closing a stream of worker %s, which is gone", owner)
        await self._records.do(close)
        self._missing.pop(owner, None)

    def _key(self, stream: str) -> str:
        return self._records.key("stream", stream)


def _unanswered(id: Id) -> bytes:
    """What a client is told of a call whose worker was lost, or failed."""
    detail = "Outcome unknown: the worker with this call was lost; it may have been carried out."
    return encode(Failure(id, OutcomeUnknown.code, detail))


def _range(key: str, after: str) -> Callable[[Any], Awaitable[Any]]:
    return lambda store: store.xrange(key, f"({after}", "+", count=_READ_AT_ONCE)


def _reading(wanted: dict[str, str]) -> Callable[[Any], Awaitable[Any]]:
    return lambda store: store.xread(wanted, count=_READ_AT_ONCE, block=_BLOCK_MS)


def _size(fields: dict[bytes, bytes]) -> int:
    return sum(map(len, fields.values()))


def _order(id: str) -> tuple[int, int]:
    high, _, low = id.partition("-")
    return int(high), int(low)
