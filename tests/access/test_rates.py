"""Limits of calls over several workers, with Redis and without; of keys, of servers, by default."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from gateway.access import rates as rates_module
from gateway.access.rates import Rates
from gateway.errors import LimitExceeded
from gateway.model.limits import Limits
from gateway.stores.redis import Redis
from gateway.tasks import end
from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import STREAM, ask, handshake, request
from tests.waiting import until

pytestmark = pytest.mark.anyio

Workers = Callable[[int], Any]


@pytest.fixture
def workers(redis_url: str) -> Workers:
    """So many workers' limits, over one Redis."""
    prefix = os.urandom(6).hex()

    @asynccontextmanager
    async def workers(count: int) -> AsyncIterator[list[Rates]]:
        async with AsyncExitStack() as stack:
            found, loops = [], []
            for number in range(count):
                redis = Redis(redis_url, prefix)
                stack.push_async_callback(redis.close)
                found.append(Rates(redis, f"worker-{number}"))
                loops.append(asyncio.create_task(found[-1].run()))
            await asyncio.gather(*(rates._beat() for rates in found))
            try:
                yield found
            finally:
                await end(loops)

    return workers


async def passes(rates: Rates, limits: Limits, subject: str = "key:k") -> bool:
    try:
        await rates.enter(subject, limits)
    except LimitExceeded:
        return False
    rates.leave(subject)
    return True


async def test_so_many_a_second_pass_over_all_workers(workers: Workers) -> None:
    limits = Limits(calls_per_second=100, burst=1)
    async with workers(4) as each:
        began, passed, offered = time.monotonic(), 0, 0
        while time.monotonic() - began < 3:
            offered += 1
            passed += await passes(each[offered % 4], limits)
            await asyncio.sleep(max(0.0, began + offered / 200 - time.monotonic()))
        seconds = time.monotonic() - began
    assert passed <= 100 * seconds + limits.at_once + limits.lease + 4 * limits.lease
    assert passed >= min(offered, 0.9 * 100 * seconds) - 4 * limits.lease


async def test_a_burst_passes_at_once_and_no_more(workers: Workers) -> None:
    limits = Limits(calls_per_second=0.01, burst=20)
    async with workers(2) as each:
        passed = [await passes(each[number % 2], limits) for number in range(40)]
    assert 20 <= sum(passed) <= 20 + limits.lease
    assert passed[:18] == [True] * 18  # a call that the other worker took and did not make is lost to this one


async def test_limits_that_change_while_calls_are_taken_are_no_fault(workers: Workers) -> None:
    async with workers(1) as [rates]:
        day, second = Limits(calls_per_day=1), Limits(calls_per_second=0.1)
        assert await passes(rates, day)
        waiting = asyncio.create_task(passes(rates, day))
        await asyncio.sleep(0)
        assert await passes(rates, second)
        await waiting
        assert not all([await passes(rates, second) for _ in range(4)])
        fast = Limits(calls_per_second=10_000)
        await passes(rates, fast)
        await asyncio.sleep(0.1)  # what was spent is made up for at the new pace
        assert all([await passes(rates, fast) for _ in range(50)])
        assert not all([await passes(rates, second) for _ in range(4)])  # none that was taken before is left


async def test_calls_that_are_rare_cost_a_day_no_more_than_they_are(workers: Workers) -> None:
    limits = Limits(calls_per_day=100)
    async with workers(1) as [rates]:
        for number in range(5):
            rates._subjects.clear()  # as after a long pause
            assert await passes(rates, limits)
            assert await rates.left("key:k", limits) == {"calls_today": 99 - number}


async def test_a_call_below_its_limit_waits_for_no_round_trip(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workers(1) as [rates]:
        limits = Limits(calls_per_second=1000)
        assert await passes(rates, limits)
        assert await passes(rates, limits)
        state = rates._subjects["key:k"]
        await until(lambda: state.calls > 0)

        async def never(*_: Any) -> Any:
            raise AssertionError("a call waits for Redis")

        monkeypatch.setattr(rates, "_wait_for_call", never)
        assert await passes(rates, limits)


async def test_a_refused_subject_is_refused_here_until_it_is_worth_a_try(workers: Workers) -> None:
    async with workers(1) as [rates]:
        limits = Limits(calls_per_second=0.1)
        for _ in range(3):
            await passes(rates, limits)
        trips = rates._redis.round_trips
        for _ in range(1000):
            with pytest.raises(LimitExceeded) as refusal:
                await rates.enter("key:k", limits)
        assert rates._redis.round_trips - trips <= 2  # those of the beat
        assert 0 < refusal.value.facts["retry_after"] <= 10


async def test_a_days_calls_are_counted_over_all_workers(workers: Workers) -> None:
    limits = Limits(calls_per_day=10)
    async with workers(2) as each:
        passed = [await passes(each[number % 2], limits) for number in range(20)]
        assert 9 <= sum(passed) <= 10
        left = await each[0].left("key:k", limits)
        assert left == {"calls_today": 0}
        with pytest.raises(LimitExceeded) as refusal:
            await each[0].enter("key:k", limits)
        assert refusal.value.facts["limit"] == "calls_per_day"


async def test_places_are_counted_over_all_workers_and_come_back(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates_module, "_KEPT_SECONDS", 0.0)
    limits = Limits(concurrent=3)
    async with workers(2) as (one, two):
        await one.enter("key:k", limits)
        await one.enter("key:k", limits)
        await two.enter("key:k", limits)
        for rates in (one, two):
            with pytest.raises(LimitExceeded) as refusal:
                await rates.enter("key:k", limits)
            assert refusal.value.facts["limit"] == "concurrent"
        one.leave("key:k")
        assert await passes(one, limits)  # the place that it keeps
        await one._beat()
        assert await passes(two, limits)
        assert await two.left("key:k", limits) == {"concurrent": 0}  # it keeps two for a moment


async def test_places_of_a_worker_that_died_are_free_after_a_while(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(concurrent=1)
    async with workers(1) as [rates]:
        dead = Rates(rates._redis, "dead")
        await dead.enter("key:k", limits)
        assert not await passes(rates, limits)
        monkeypatch.setattr(rates_module, "_DEAD_SECONDS", -1)
        assert await passes(rates, limits)


async def test_without_redis_each_worker_allows_its_part(redis_url: str) -> None:
    gone = Redis("redis://127.0.0.1:1", "x")
    rates = Rates(gone, "alone")
    rates._workers = 2
    limits = Limits(calls_per_second=0.1, burst=10)
    assert sum([await passes(rates, limits) for _ in range(20)]) == 5
    places = Limits(concurrent=4)
    await rates.enter("key:p", places)
    await rates.enter("key:p", places)
    with pytest.raises(LimitExceeded):
        await rates.enter("key:p", places)
    assert sum([await passes(rates, Limits(calls_per_day=6), "key:d") for _ in range(20)]) == 3
    await gone.close()


async def test_a_limit_that_is_changed_holds_at_once(workers: Workers) -> None:
    async with workers(1) as [rates]:
        assert not all([await passes(rates, Limits(calls_per_second=0.01)) for _ in range(4)])
        assert await passes(rates, Limits(calls_per_second=0.01, burst=100))


async def test_idle_subjects_are_forgotten(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "_IDLE_SECONDS", 0.0)
    async with workers(1) as [rates]:
        for number in range(50):
            await passes(rates, Limits(calls_per_second=1000), f"key:{number}")
        await until(lambda: not rates._subjects)


# --- at a gateway -----------------------------------------------------------------------------------------------------


async def made(client: Client, name: str = "agent", **fields: Any) -> Client:
    value = {"name": name, "grants": {"allow": [{"servers": ["*"]}]}, **fields}
    status, _, key = await client.ask("POST", "/keys", value=value)
    assert status == 201, key
    return Client(client.app, key["key"])


async def exhausted(call: Callable[[], Awaitable[Any]], refused: Callable[[Any], bool]) -> Any:
    """Call until it is refused."""
    for _ in range(20):
        if refused(answer := await call()):
            return answer
    raise AssertionError("it is never refused")


async def test_over_its_limit_a_key_is_refused_in_every_protocol(client: Client, registered: MemoryServer) -> None:
    agent = await made(client, limits={"calls_per_second": 0.02, "burst": 3})
    session = await handshake(agent)

    async def rest() -> Any:
        return await agent.ask("POST", "/mcp/tools/call", value={"name": "echo"})

    status, headers, problem = await exhausted(rest, lambda answer: answer[0] != 200)
    assert (status, problem["title"], problem["limit"]) == (429, "Limit exceeded", "calls_per_second")
    assert headers["retry-after"] == str(problem["retry_after"])
    assert headers["ratelimit-policy"] == '"calls_per_second";q=1;w=1'
    assert headers["ratelimit"].startswith('"calls_per_second";r=0;t=')
    error = await ask(agent, "/mcp", session, "tools/call", name="demo__echo")
    assert (error["code"], error["data"]["limit"]) == (-32059, "calls_per_second")
    assert error["data"]["retry_after"] >= 1
    for method, params in (
        ("resources/read", {"uri": "x://y"}),
        ("prompts/get", {"name": "x"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {}}),
    ):
        assert (await ask(agent, "/mcp", session, method, **params))["code"] == -32059
    body = request("tools/call", name="demo__echo")
    status, _, answer = await agent.ask("POST", "/rpc", value=[body, {**body, "id": 2}])
    assert (status, [each["error"]["code"] for each in answer]) == (200, [-32059, -32059])
    assert "tools" in await ask(agent, "/mcp", session, "tools/list")  # what is no call does not count
    _, _, me = await agent.ask("GET", "/whoami")
    assert (me["limits"], me["left"]) == ({"calls_per_second": 0.02, "burst": 3}, {"calls_at_once": 0})
    assert (await client.ask("POST", "/mcp/tools/call", value={"name": "echo"}))[0] == 200


async def test_a_server_has_limits_for_everybody(client: Client, registered: MemoryServer) -> None:
    status, _, server = await client.ask("PATCH", "/mcp/servers/demo", value={"limits": {"calls_per_second": 0.01}})
    assert (status, server["limits"]) == (200, {"calls_per_second": 0.01})

    async def call() -> Any:
        return await client.ask("POST", "/mcp/tools/call", value={"name": "echo"})

    _, _, problem = await exhausted(call, lambda answer: answer[0] == 429)
    assert "Server 'demo'" in problem["detail"]
    session = await handshake(client, "/mcp/servers/demo/mcp")
    error = await ask(client, "/mcp/servers/demo/mcp", session, "tools/call", name="echo")
    assert error["code"] == -32059
    await client.ask("PATCH", "/mcp/servers/demo", value={"limits": None})
    assert (await call())[0] == 200


async def test_keys_without_limits_have_the_default_ones(open_app: Open, servers: Servers) -> None:
    async with open_app(default_limits={"calls_per_day": 2}) as (_, client):
        agent, other = await made(client), await made(client, "other", limits={"calls_per_day": 1000})
        assert (await agent.ask("GET", "/whoami"))[2]["limits"] == {"calls_per_day": 2}
        answers = [(await agent.ask("POST", "/mcp/tools/call", value={"name": "x"}))[0] for _ in range(5)]
        assert answers[:1] == [404]
        assert answers[-1] == 429
        for _ in range(5):
            assert (await other.ask("POST", "/mcp/tools/call", value={"name": "x"}))[0] == 404


async def test_a_call_that_is_cancelled_gives_its_place_back(client: Client, registered: MemoryServer) -> None:
    agent = await made(client, limits={"concurrent": 1})

    async def hang(*_: Any) -> Any:
        await asyncio.Event().wait()

    registered.tools["hang"] = hang
    await client.ask("POST", "/mcp/servers/demo/refresh")
    async with agent.open("POST", "/mcp/tools/call", value={"name": "hang"}, headers=STREAM):
        await until(lambda: any(each.method == "tools/call" for each in registered.requests))
        assert (await agent.ask("POST", "/mcp/tools/call", value={"name": "echo"}))[0] == 429
    assert (await agent.ask("POST", "/mcp/tools/call", value={"name": "echo"}))[0] == 200
