"""Errands and replies between workers on a real Redis."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from gateway.stores import inbox as module
from gateway.stores.inbox import Inbox
from gateway.stores.redis import Redis, RedisUnavailable
from gateway.stores.streams import Streams
from gateway.tasks import end

pytestmark = pytest.mark.anyio


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = Redis(redis_url, f"inbox-test-{os.urandom(4).hex()}")
    yield redis
    await redis.close()


@pytest.fixture
async def inbox(redis: Redis) -> AsyncIterator[Inbox]:
    streams = Streams(redis)
    running = asyncio.create_task(streams.run())
    yield Inbox(redis, streams, 60)
    await end([running])  # asyncio.wait_for, which redis-py waits on, can lose a cancellation


async def test_an_errand_is_read_once_by_the_worker_it_is_for(inbox: Inbox) -> None:
    await inbox.push("a", b"first")
    await inbox.push("a", b"second")
    await inbox.push("b", b"other")
    assert [await inbox.next(["a"]), await inbox.next(["a"]), await inbox.next(["a"])] == [b"first", b"second", None]
    assert await inbox.next(["a", "b"]) == b"other", "a worker reads for the bridge beside it, too"


async def test_replies_come_in_order_also_those_from_before_one_listened(inbox: Inbox) -> None:
    for number in range(3):
        await inbox.append("replies", str(number).encode())
    seen: list[bytes] = []
    async with asyncio.timeout(10), aclosing(inbox.follow("replies")) as entries:
        async for id, fields in entries:
            if b"e" in fields:
                break
            seen.append(fields[b"d"])
            await inbox.consumed("replies", id, 1)
            if len(seen) == 3:
                await inbox.append("replies", b"", b"e")
    assert seen == [b"0", b"1", b"2"]


async def test_a_reader_that_does_not_keep_up_is_told_to_the_writer(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 10)
    assert await inbox.append("slow", b"x" * 10)
    assert await inbox.append("slow", b"x")
    assert not await inbox.append("slow", b"x")
    await inbox.consumed("slow", "0-0", 11)
    assert await inbox.append("slow", b"x")


async def test_many_follow_one_stream_and_each_gets_everything(inbox: Inbox) -> None:
    async def read(number: int) -> list[bytes]:
        found: list[bytes] = []
        async with aclosing(inbox.follow("shared")) as entries:
            async for _, fields in entries:
                found.append(fields[b"d"])
                if len(found) == 20:
                    return found
        return found

    readers = [asyncio.create_task(read(number)) for number in range(5)]
    for number in range(20):
        await inbox.append("shared", str(number).encode())
    async with asyncio.timeout(20):
        assert await asyncio.gather(*readers) == [[str(number).encode() for number in range(20)]] * 5


async def test_without_redis_it_says_so_at_once(inbox: Inbox, redis: Redis) -> None:
    redis.rest(60)
    with pytest.raises(RedisUnavailable):
        await inbox.push("a", b"x")
    with pytest.raises(RedisUnavailable):
        await inbox.append("a", b"x")
