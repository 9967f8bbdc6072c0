"""The records of sessions on a real Redis: of two that open an upstream session one holds; idle ones are claimed."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

import orjson
import pytest

from gateway.errors import SessionNotFound, TooManyRequests
from gateway.protocol.exchange import Handshake
from gateway.sessions.record import LocalRecord, Record, Records, UpstreamRecord, subscription
from gateway.stores.redis import Redis, RedisUnavailable
from gateway.upstream.contract import UpstreamSession

pytestmark = pytest.mark.anyio
SHAKE = Handshake("2025-11-25", {"logging": {}}, {"name": "s"}, "hello")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = Redis(redis_url, f"record-test-{os.urandom(4).hex()}")
    yield redis
    await redis.close()


@pytest.fixture
def records(redis: Redis) -> Records:
    return Records(redis)


def record(principal: str = "p") -> Record:
    return Record(principal, "2025-11-25", int(time.time()) + 600, {"roots": {}}, {"name": "me", "version": "1"})


def upstream(handle: str) -> UpstreamRecord:
    return UpstreamRecord(handle, UpstreamSession(SHAKE, f"id of {handle}", None), "fingerprint")


async def create(records: Records, key: str, principal: str = "p", cap: int = 10) -> Record:
    made = record(principal)
    await records.create(key, made, time.time() + 60, cap)
    return made


async def test_what_is_written_is_read(records: Records) -> None:
    made = await create(records, "k")
    assert await records.read("k") == made
    await records.change("k", {"level": "error", subscription("demo", "a:b\nc"): "1"})
    await records.compare_and_set("k", "demo", upstream("u"), None)
    found = await records.read("k")
    assert found is not None
    assert (found.level, found.subscriptions, found.upstream) == (
        "error", frozenset({("demo", "a:b\nc")}), {"demo": upstream("u")}
    )  # fmt: skip
    await records.forget("k", subscription("demo", "a:b\nc"))
    found = await records.read("k")
    assert found is not None
    assert not found.subscriptions


async def test_of_many_that_open_an_upstream_session_at_once_one_holds(records: Records) -> None:
    await create(records, "k")
    made = [upstream(f"u{number}") for number in range(10)]
    held = await asyncio.gather(*(records.compare_and_set("k", "demo", each, None) for each in made))
    [winner] = {each.handle for each in held if each is not None}
    assert winner in {each.handle for each in made}


async def test_one_that_expired_is_replaced_only_by_who_saw_it(records: Records) -> None:
    await create(records, "k")
    old, new, late = upstream("old"), upstream("new"), upstream("late")
    assert await records.compare_and_set("k", "demo", old, None) == old
    assert await records.compare_and_set("k", "demo", new, old) == new
    assert await records.compare_and_set("k", "demo", late, old) == new


async def test_a_session_that_ended_takes_nothing(records: Records) -> None:
    assert await records.compare_and_set("k", "demo", upstream("u"), None) is None
    assert not await records.change("k", {"level": "error"})
    assert await records.read("k") is None


async def test_it_is_removed_once_and_leaves_its_place(records: Records) -> None:
    made = await create(records, "k", cap=1)
    with pytest.raises(TooManyRequests):
        await create(records, "other", cap=1)
    assert sorted(map(str, await asyncio.gather(*(records.remove("k") for _ in range(3))))) == sorted(
        map(str, [made, None, None])
    )
    await create(records, "other", cap=1)
    assert await records.count() == 1


async def test_an_idle_session_is_claimed_by_one(records: Records) -> None:
    await create(records, "k")
    later = time.time() + 120
    claims = await asyncio.gather(*(records.overdue(later, 10) for _ in range(5)))
    assert sorted(map(len, claims)) == [0, 0, 0, 0, 1]
    await records.extend_deadlines({"k": later + 600})
    assert await records.overdue(later + 300, 10) == []


async def test_a_worker_that_finds_no_record_says_that_the_session_is_over(records: Records, redis: Redis) -> None:
    gone: list[str] = []
    made = await create(records, "k")
    local = LocalRecord(records, "k", made, gone.append)
    assert await local.refresh() == made
    redis.rest(60)
    assert await local.refresh() is None
    with pytest.raises(RedisUnavailable):
        await local.compare_and_set("demo", upstream("u"), None)
    redis.rest(0)
    await records.remove("k")
    with pytest.raises(SessionNotFound):
        await local.refresh()
    with pytest.raises(SessionNotFound):
        await local.change({"level": "error"})
    assert gone == ["k", "k"]


def test_what_a_newer_version_wrote_is_read() -> None:
    made = upstream("u")
    newer = orjson.dumps([*orjson.loads(made.to_bytes()), {"more": 1}])
    read = UpstreamRecord.from_bytes(newer)
    assert read == made
    assert read.to_bytes() == newer  # so that it can be replaced


async def test_what_was_read_during_a_write_is_read_again(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a session has a subscription again that its client just ended."""
    made = await create(records, "k")
    await records.change("k", {subscription("demo", "a:b"): "1"})
    local = LocalRecord(records, "k", made, lambda key: None)
    read, was_read, go = records.read, asyncio.Event(), asyncio.Event()

    async def slowly(key: str) -> Record | None:
        found = await read(key)
        was_read.set()
        await go.wait()
        return found

    monkeypatch.setattr(records, "read", slowly)
    refreshing = asyncio.create_task(local.refresh())
    await was_read.wait()
    assert await local.forget(subscription("demo", "a:b"))
    go.set()
    found = await refreshing
    assert found is not None
    assert not found.subscriptions
    assert not local.record.subscriptions
