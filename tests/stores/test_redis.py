"""A Redis that is gone: every operation fails in time, and the log says it once."""

import pytest

from gateway.stores.redis import Redis, RedisUnavailable

pytestmark = pytest.mark.anyio


async def test_its_absence_has_one_line_with_its_address_and_the_systems_words(
    free_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    redis = Redis(f"redis://:s3cret@127.0.0.1:{free_tcp_port}/0", "gone")
    for _ in range(3):
        with pytest.raises(RedisUnavailable):
            await redis.beat("w", 1)
        redis.rest(0)
    [line] = [record.getMessage() for record in caplog.records]
    assert line == f"Redis does not answer at 127.0.0.1:{free_tcp_port}: Connection refused"
    await redis.close()


async def test_its_return_has_one_line(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway")
    redis = Redis(redis_url, "back")

    async def lost(_: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(RedisUnavailable):
        await redis.do(lost)
    redis.rest(0)
    for _ in range(2):
        assert await redis.answers()
    assert [record.getMessage() for record in caplog.records][1:] == ["Redis answers again"]
    await redis.close()
