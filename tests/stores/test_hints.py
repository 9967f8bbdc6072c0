import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote

import pytest

from gateway.stores.hints import Hints
from tests.fix_proxy import Start
from tests.waiting import until

pytestmark = pytest.mark.anyio


class Ear:
    """Counts hints and lets a test wait for the next."""

    def __init__(self) -> None:
        self._heard = asyncio.Event()

    def __call__(self) -> None:
        self._heard.set()

    async def hint(self) -> None:
        async with asyncio.timeout(20):
            await self._heard.wait()
        self._heard.clear()


@asynccontextmanager
async def listening(bus: Hints) -> AsyncIterator[Ear]:
    ear = Ear()
    task = asyncio.create_task(bus.listen(ear))
    try:
        yield ear
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bus.close()


async def test_a_subscription_counts_as_a_hint_and_a_publication_is_one(redis_url: str) -> None:
    speaker = Hints(redis_url)
    async with listening(Hints(redis_url)) as ear:
        await ear.hint()
        assert await speaker.publish()
        await ear.hint()
    await speaker.close()


async def test_a_cut_connection_is_made_anew_and_hints(redis_url: str, proxy: Start) -> None:
    link = await proxy(unquote(redis_url.removeprefix("unix://")))
    bus = Hints(f"redis://127.0.0.1:{link.port}/0")
    async with listening(bus) as ear:
        await ear.hint()
        await link.cut()
        assert not await bus.publish()
        link.restore()
        await ear.hint()
        assert bus.connected


async def test_a_frozen_server_is_noticed(redis_url: str, proxy: Start) -> None:
    link = await proxy(unquote(redis_url.removeprefix("unix://")))
    bus = Hints(f"redis://127.0.0.1:{link.port}/0")
    async with listening(bus) as ear:
        await ear.hint()
        link.stall()
        await until(lambda: not bus.connected)
        link.restore()
        await ear.hint()


async def test_closing_does_not_wait_for_a_frozen_server(redis_url: str, proxy: Start) -> None:
    link = await proxy(unquote(redis_url.removeprefix("unix://")))
    bus = Hints(f"redis://127.0.0.1:{link.port}/0")
    assert await bus.publish()
    link.stall()
    async with asyncio.timeout(20):
        await bus.close()
