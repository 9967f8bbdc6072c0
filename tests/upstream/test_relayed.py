"""Errands between workers on a real Redis: what arrives that is none, who dies, and what the asker is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
import pytest

from gateway.errors import OutcomeUnknown
from gateway.protocol.exchange import Handshake
from gateway.protocol.messages import Reply, Request
from gateway.stores.inbox import Inbox
from gateway.stores.redis import Redis
from gateway.stores.streams import Streams
from gateway.stores.words import Word
from gateway.tasks import end
from gateway.upstream import relayed as relay_module
from gateway.upstream.contract import UpstreamSession
from gateway.upstream.memory import MemoryServer, MemoryUpstream
from gateway.upstream.relayed import Relay, RelayedUpstream
from tests.calls import messages_of

pytestmark = pytest.mark.anyio
CALL = Request(1, "tools/call", {"name": "echo"})


class Worker:
    """One worker's relay, with its heartbeat."""

    def __init__(self, redis_url: str, name: str) -> None:
        self.redis = Redis(redis_url, f"relay-test-{name.partition('/')[0]}")
        self.streams = Streams(self.redis)
        self.inbox = Inbox(self.redis, self.streams, 60)
        self.relay = Relay(self.redis, self.inbox, name, self._tell)

    async def _tell(self, _: Word) -> int:
        return 0


@asynccontextmanager
async def worker(redis_url: str, name: str, find: Callable[[str], Any]) -> AsyncIterator[Worker]:
    one = Worker(redis_url, name)
    loops = [
        asyncio.create_task(one.redis.keep_beating(name)),
        asyncio.create_task(one.streams.run()),
        asyncio.create_task(one.relay.serve(find)),
    ]
    while not await one.redis.lives(name):  # noqa: ASYNC110  # Redis has no event for it
        await asyncio.sleep(0.01)
    try:
        yield one
    finally:
        await end(loops)  # asyncio.wait_for, which redis-py waits on, can lose a cancellation
        await one.redis.close()


class Slow(MemoryUpstream):
    """An upstream whose answer waits for a word."""

    def __init__(self) -> None:
        super().__init__("demo", MemoryServer())
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def call(self, session: UpstreamSession, request: Request) -> Reply:
        self.begun.set()
        await self.go.wait()
        return Reply(request.id, {"done": True})


class Broken(MemoryUpstream):
    """An upstream with a fault that nobody expected."""

    def __init__(self) -> None:
        super().__init__("demo", MemoryServer())

    async def call(self, session: UpstreamSession, request: Request) -> Reply:
        raise ZeroDivisionError


def session_of(holder: str) -> UpstreamSession:
    return UpstreamSession(Handshake("2025-11-25", {}, {}, None), "s", holder)


async def carried(asker: Worker, holder: str) -> list[Any]:
    upstream = RelayedUpstream("demo", MemoryUpstream("demo", MemoryServer()), asker.relay)
    async with asyncio.timeout(10), aclosing(messages_of(upstream, session_of(holder), CALL)) as messages:
        return [each async for each in messages]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"{", b"[]", b"{}", b'{"kind": "send"}', b'{"kind": "send", "server": "demo", "reply": 5, "link": [[], 1, 2]}',
        b'{"kind": "send", "server": "demo", "reply": "x", "link": [["v", {}, {}, null], "s", "h"], "message": "{"}',
    ],
)  # fmt: skip
async def test_what_is_no_errand_ends_no_errand_that_is_under_way(
    redis_url: str, nonsense: bytes, tmp_path: Any
) -> None:
    slow = Slow()
    name = f"{tmp_path.name}/a"
    async with (
        worker(redis_url, name, lambda _: slow) as holder,
        worker(redis_url, f"{tmp_path.name}/b", lambda _: slow) as asker,
    ):
        call = asyncio.create_task(carried(asker, name))
        await slow.begun.wait()
        await holder.redis.do(lambda store: store.rpush(holder.redis.key("inbox", name), nonsense))
        while await holder.redis.do(lambda store: store.llen(holder.redis.key("inbox", name))):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        slow.go.set()
        assert [each.result for each in await call if isinstance(each, Reply)] == [{"done": True}]


async def test_a_fault_of_the_holder_is_told_to_the_asker(redis_url: str, tmp_path: Any) -> None:
    name = f"{tmp_path.name}/a"
    async with (
        worker(redis_url, name, lambda _: Broken()),
        worker(redis_url, f"{tmp_path.name}/b", lambda _: None) as asker,
    ):
        with pytest.raises(OutcomeUnknown, match="its log has the cause"):
            await carried(asker, name)


async def test_an_errand_with_another_message_than_its_kind_is_refused(redis_url: str, tmp_path: Any) -> None:
    name = f"{tmp_path.name}/a"
    async with (
        worker(redis_url, name, lambda _: Slow()),
        worker(redis_url, f"{tmp_path.name}/b", lambda _: None) as asker,
    ):
        errand: dict[str, Any] = {
            "kind": "send", "server": "demo", "link": [["v", {}, {}, None], "s", name],
            "message": '{"jsonrpc":"2.0","method":"notifications/initialized"}',
        }  # fmt: skip
        async with asyncio.timeout(10), aclosing(asker.relay.ask(name, errand)) as entries:
            fields = await anext(entries)
        assert orjson.loads(fields[b"x"])[0] == -32600


async def test_a_dead_asker_holds_up_nobody(redis_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "_LOOK_SECONDS", 0.05)
    slow, name = Slow(), f"{tmp_path.name}/a"
    async with (
        worker(redis_url, name, lambda _: slow) as holder,
        worker(redis_url, f"{tmp_path.name}/b", lambda _: slow) as asker,
    ):
        looked = asyncio.Event()

        async def dead(worker: str) -> bool:
            if worker.endswith("/gone"):
                looked.set()
                await asyncio.Event().wait()  # as long as it may take: here for ever
            return True

        monkeypatch.setattr(holder.relay, "_lives", dead)
        errand: dict[str, Any] = {
            "kind": "send", "server": "demo", "link": [["v", {}, {}, None], "s", name], "reply": "r",
            "asker": f"{tmp_path.name}/gone", "message": '{"jsonrpc":"2.0","id":1,"method":"ping"}',
        }  # fmt: skip
        await asker.inbox.push(name, orjson.dumps(errand))
        await asyncio.wait_for(looked.wait(), 10)
        slow.go.set()
        with contextlib.suppress(TimeoutError):
            assert len(await carried(asker, name)) == 1
            return
        pytest.fail("the inbox waits for a dead asker")
