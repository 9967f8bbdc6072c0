"""The event log on a real Redis: what is sent is what is read, gaps are gaps, and the streams of the dead end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import EventUnknown
from gateway.stores import event_log as module
from gateway.stores.event_log import EventLog, Retention
from gateway.stores.redis import Redis
from gateway.stores.streams import Streams
from gateway.tasks import end
from tests.waiting import until

pytestmark = pytest.mark.anyio


class Worker:
    """One worker's event log."""

    def __init__(self, redis: Redis, name: str, retention: Retention) -> None:
        self.redis = redis
        self.streams = Streams(redis)
        self.log = EventLog(redis, self.streams, name, retention)

    async def read(self, session: str, after: str) -> list[tuple[str, bytes]]:
        """All events after one, to the stream's end."""
        found = await self.log.find(session, after)
        async with asyncio.timeout(20):
            return [event async for event in self.log.resume(found)]

    async def written(self) -> None:
        """Wait until everything is on record."""
        await until(lambda: not self.log.unwritten)
        await asyncio.sleep(0.05)


@asynccontextmanager
async def worker(
    redis_url: str, name: str, stream_bytes: int = 1 << 20, *, beats: bool = True
) -> AsyncIterator[Worker]:
    redis = Redis(redis_url, "event-log-test")
    one = Worker(redis, name, Retention(stream_bytes, 60))
    loops = [asyncio.create_task(one.log.write()), asyncio.create_task(one.streams.run())]
    if beats:
        loops.append(asyncio.create_task(redis.keep_beating(name)))
        while not await redis.lives(name):  # noqa: ASYNC110  # Redis has no event for it
            await asyncio.sleep(0.01)
    try:
        yield one
    finally:
        await end(loops)  # asyncio.wait_for, which redis-py waits on, can lose a cancellation
        await redis.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that sends no heartbeat is taken for dead at once."""
    monkeypatch.setattr(module, "_GONE_SECONDS", 0.0)


async def test_what_one_worker_sends_another_reads_from_where_it_was_cut(redis_url: str) -> None:
    async with worker(redis_url, "a") as a, worker(redis_url, "b") as b:
        recording = a.log.begin("session", [1])
        ids = [recording.event(str(number).encode()) for number in range(3)]
        late = asyncio.create_task(b.read("session", ids[0]))
        await asyncio.sleep(0.1)
        recording.event(b"answer", 1)
        recording.end()
        assert [data for _, data in await late] == [b"1", b"2", b"answer"]
        assert [data for _, data in await b.read("session", recording.first)] == [b"0", b"1", b"2", b"answer"]
        assert [id for id, _ in await b.read("session", recording.first)][:3] == ids


async def test_an_event_that_is_resumed_before_it_is_written_is_waited_for(redis_url: str) -> None:
    async with worker(redis_url, "a") as a:
        recording = a.log.begin("session")
        id = recording.event(b"x")
        recording.end()
        assert await a.read("session", id) == []


@pytest.mark.parametrize("event", ["nonsense", "0" * 24 + "_1"])
async def test_an_event_that_was_not_given_out_is_unknown(redis_url: str, event: str) -> None:
    async with worker(redis_url, "a") as a:
        with pytest.raises(EventUnknown):
            await a.log.find("session", event)


async def test_another_sessions_event_is_as_unknown(redis_url: str) -> None:
    async with worker(redis_url, "a") as a:
        recording = a.log.begin("session")
        id = recording.event(b"x")
        await a.written()
        with pytest.raises(EventUnknown):
            await a.log.find("other", id)


async def test_what_was_trimmed_is_a_gap_and_never_silence(redis_url: str) -> None:
    async with worker(redis_url, "a", stream_bytes=100) as a:
        recording = a.log.begin("session")
        ids = [recording.event(b"x" * 40) for _ in range(5)]
        recording.end()
        await a.written()
        with pytest.raises(EventUnknown, match="gap"):
            await a.read("session", ids[0])
        assert len(await a.read("session", ids[3])) == 1


async def test_what_no_worker_could_write_is_a_gap(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 3 * module._ENTRY_BYTES)
    async with worker(redis_url, "a") as a:
        a.redis.rest(60)
        recording = a.log.begin("session")
        first = recording.event(b"x" * 20)
        recording.event(b"y" * 20)
        recording.event(b"z" * 20)
        assert a.log.dropped
        a.redis.rest(0)
        await a.written()
        with pytest.raises(EventUnknown, match="gap"):
            await a.read("session", first)


async def test_what_waits_counts_with_all_that_it_takes(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 1 << 20)
    async with worker(redis_url, "a") as a:
        a.redis.rest(60)
        for _ in range(10_000):
            a.log.begin("session", ["an id of a request"]).end()
        assert a.log.dropped
        assert a.log.unwritten < (1 << 20) / module._ENTRY_BYTES


async def test_a_principals_streams_are_bounded_together(redis_url: str) -> None:
    async with worker(redis_url, "a") as a:
        a.log.retention = Retention(1 << 20, 60, principal_bytes=5_000)
        first = a.log.begin("session", principal="p")
        first.event(b"x" * 3_000)
        second, other = a.log.begin("session", principal="p"), a.log.begin("session", principal="q")
        for recording in (second, other):
            recording.event(b"y" * 3_000)
        for recording in (first, second, other):
            recording.end()
        await a.written()
        assert len(await a.read("session", first.first)) == len(await a.read("session", other.first)) == 1
        with pytest.raises(EventUnknown, match="gap"):
            await a.read("session", second.first)


async def test_what_redis_refuses_is_a_gap_and_said(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REFUSED_SECONDS", 0.05)
    async with worker(redis_url, "a") as a:
        before = a.log.begin("session", [1])
        before.event(b"x")
        await a.written()
        await a.redis.do(lambda store: store.config_set("maxmemory-policy", "noeviction"))
        await a.redis.do(lambda store: store.config_set("maxmemory", 1))
        try:
            before.event(b"y")
            lost = a.log.begin("session")
            lost.event(b"z")
            await until(lambda: "maxmemory" in str(a.log.trouble))
        finally:
            await a.redis.do(lambda store: store.config_set("maxmemory", 0))
        await until(lambda: a.log.trouble is None)
        for recording in (before, lost):
            with pytest.raises(EventUnknown):
                await a.read("session", recording.first)
        after = a.log.begin("session")
        after.event(b"as before")
        after.end()
        await a.written()
        assert len(await a.read("session", after.first)) == 1


async def test_an_entry_that_can_not_be_written_does_not_hold_up_the_others(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.01)
    async with worker(redis_url, "a") as a:
        write = a.log._store

        async def slow(store: object, batch: list[module._Entry]) -> dict[str, str]:
            if any(entry.size > 10_000 for entry in batch):
                raise TimeoutError
            return await write(store, batch)

        monkeypatch.setattr(a.log, "_store", slow)
        monkeypatch.setattr(a.redis, "rest", lambda seconds: None)
        good, bad, late = (a.log.begin("session") for _ in range(3))
        for recording, data in ((good, b"x"), (bad, b"x" * 20_000), (late, b"x")):
            recording.event(data)
            recording.end()
        await until(lambda: not a.log.unwritten)
        await a.written()
        assert len(await a.read("session", good.first)) == len(await a.read("session", late.first)) == 1
        with pytest.raises(EventUnknown):
            await a.read("session", bad.first)


async def test_a_batch_is_bounded_in_bytes(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FLUSH_BYTES", 10_000)
    async with worker(redis_url, "a") as a:
        sizes: list[int] = []
        write = a.log._store

        async def counting(store: object, batch: list[module._Entry]) -> dict[str, str]:
            sizes.append(sum(entry.size for entry in batch))
            return await write(store, batch)

        monkeypatch.setattr(a.log, "_store", counting)
        recording = a.log.begin("session")
        for size in (100, 4_000, 4_000, 4_000, 30_000, 100):
            recording.event(b"x" * size)
        recording.end()
        await a.written()
        assert [size for size in sizes if size > 10_000] == [30_000 + module._ENTRY_BYTES]
        assert len(await a.read("session", recording.first)) == 6


async def test_an_entry_that_is_written_twice_is_there_once(redis_url: str) -> None:
    """As after a write whose answer was lost."""
    async with worker(redis_url, "a") as a:
        recording = a.log.begin("session")
        first = recording.event(b"x")
        a.log.put(module._Entry(recording.id, "1-1", {"d": b"again"}, 5), "")
        recording.event(b"y")
        recording.end()
        await a.written()
        assert [data for _, data in await a.read("session", recording.first)] == [b"x", b"y"]
        assert first.endswith("_1")


async def test_the_stream_of_a_dead_worker_ends_with_what_is_unknown_and_takes_no_more(
    redis_url: str, soon: None
) -> None:
    async with worker(redis_url, "dead", beats=False) as dead, worker(redis_url, "b") as b, worker(redis_url, "c") as c:
        recording = dead.log.begin("session", [7, "x"])
        recording.event(b"answer of 7", 7)
        id = recording.event(b"progress")
        await dead.written()
        both = await asyncio.gather(b.read("session", id), c.read("session", id))
        for events in both:
            [answer] = [json.loads(data) for _, data in events]
            assert (answer["id"], answer["error"]["code"]) == ("x", -32053)
        recording.event(b"too late", "x")  # it lived after all
        recording.end()
        await dead.written()
        assert [json.loads(data)["id"] for _, data in await b.read("session", id)] == ["x"]


async def test_what_a_replica_refuses_is_written_when_it_is_none_any_more(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.05)
    async with worker(redis_url, "a", beats=False) as a:
        recording = a.log.begin("session")
        recording.event(b"x")
        await a.written()
        await a.redis.do(lambda store: store.replicaof("127.0.0.1", "1"))
        try:
            recording.event(b"y")
            recording.end()
            await asyncio.sleep(0.3)
            assert a.log.unwritten
        finally:
            await a.redis.do(lambda store: store.replicaof("NO", "ONE"))
        await a.written()
        assert [data for _, data in await a.read("session", recording.first)] == [b"x", b"y"]
        assert a.log.trouble is None
