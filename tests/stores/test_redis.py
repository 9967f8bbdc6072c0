"""A Redis that is gone: every operation fails in time, and the log says it once."""

import asyncio
from pathlib import Path
from urllib.parse import unquote

import pytest
import redis

from gateway.run.embedded import Stores
from gateway.stores.hints import Hints
from gateway.stores.redis import Redis, RedisUnavailable
from gateway.stores.words import ErrandStopped, Word
from gateway.tasks import end
from tests.fix_proxy import Start
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def test_its_absence_has_one_line_with_its_address_and_the_systems_words(
    free_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = Redis(f"redis://:s3cret@127.0.0.1:{free_tcp_port}/0", "gone")
    for _ in range(3):
        with pytest.raises(RedisUnavailable):
            await store.beat("w", 1)
        store.rest(0)
    [line] = [record.getMessage() for record in caplog.records]
    assert line == f"Redis does not answer at 127.0.0.1:{free_tcp_port}: Connection refused"
    await store.close()


async def test_what_is_bulk_has_the_time_that_it_was_given(redis_url: str) -> None:
    store = Redis(redis_url, "bulk")
    assert await store.do(lambda redis: redis.blpop("nothing", 2.5), 10, bulk=True) is None
    await store.close()


async def test_what_comes_too_late_is_nobody_elses_answer(redis_url: str) -> None:
    store = Redis(redis_url, "late")
    await store.do(lambda redis: redis.set("late:mine", b"mine"))
    for _ in range(3):
        with pytest.raises(RedisUnavailable):
            await store.do(lambda redis: redis.blpop("nothing", 0.3), 0.1, bulk=True)
        await asyncio.sleep(0.4)
        assert await store.do(lambda redis: redis.get("late:mine")) == b"mine"
    await store.close()


async def test_its_return_has_one_line(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway")
    store = Redis(redis_url, "back")

    async def lost(_: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(RedisUnavailable):
        await store.do(lost)
    store.rest(0)
    for _ in range(2):
        assert await store.answers()
    assert [record.getMessage() for record in caplog.records][1:] == ["Redis answers again"]
    await store.close()


async def test_a_redis_that_became_a_replica_is_left_for_the_one_behind_the_address(
    redis_url: str, proxy: Start, tmp_path: Path
) -> None:
    stores = Stores(tmp_path, postgres=False)
    try:
        old = stores.start().redis_url
        way = await proxy(unquote(old.removeprefix("unix://")))
        one, hints = Redis(f"redis://127.0.0.1:{way.port}", "failover"), Hints(f"redis://127.0.0.1:{way.port}")
        one.on_leave(hints.leave)
        heard: list[Word] = []
        listening = asyncio.create_task(hints.listen(lambda: None, heard.append))
        await hints.first_contact(10)
        await one.do(lambda store: store.set("failover", b"1"))
        with redis.Redis.from_url(old) as admin:
            admin.replicaof("127.0.0.1", "1")
        way.lead_to(unquote(redis_url.removeprefix("unix://")))  # the address is the new primary's now
        with pytest.raises(RedisUnavailable):
            await one.do(lambda store: store.set("failover", b"2"))
        await one.do(lambda store: store.set("failover", b"3"))
        with redis.Redis.from_url(redis_url) as admin:
            assert admin.getdel("failover") == b"3"
        await until(lambda: hints.connected)
        other = Hints(redis_url)
        async with asyncio.timeout(10):
            while not heard:
                await other.broadcast(ErrandStopped("x"))
                await asyncio.sleep(0.05)
        await end([listening])
        await asyncio.gather(one.close(), hints.close(), other.close())
    finally:
        stores.stop()
