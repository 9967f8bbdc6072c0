"""What design.md promises of the data path and of propagation, counted."""

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.edge.app import Application
from gateway.errors import StoreUnavailable
from gateway.methods.services import Gateway
from gateway.protocol.messages import Notification, Request
from gateway.upstream.memory import Emit, MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import STREAM, ask, handshake
from tests.waiting import until

pytestmark = pytest.mark.anyio


def inside(app: Application) -> Gateway:
    gateway = app.gateway
    assert gateway is not None
    return gateway


async def test_a_call_costs_no_round_trip_to_postgres_or_redis(open_app: Open, servers: Servers) -> None:
    servers["a"] = MemoryServer()
    async with open_app(poll_seconds=300, refresh_seconds=3600) as (app, client):
        await client.ask("POST", "/mcp/servers", value={"name": "a", "url": "http://a.test/mcp"})
        session = await handshake(client)
        await ask(client, "/mcp", session, "tools/call", name="a__echo")
        gateway = inside(app)
        count: list[tuple[int, int, int]] = []
        for _ in range(2):
            count.append((gateway.postgres.queries, gateway.hints.round_trips, gateway.redis.round_trips))
            for _ in range(20):
                await ask(client, "/mcp", session, "tools/call", name="a__echo", arguments={"x": 1})
                await client.ask("POST", "/mcp/tools/call", value={"name": "a__echo"})
        queries, trips, records = (count[1][at] - count[0][at] for at in (0, 1, 2))
        assert trips == 0
        assert records < 20, "40 calls; only heartbeats and the look for idle sessions, every second or two"
        assert queries < 20, "40 calls; only the refresh loop may have looked for due servers meanwhile, once a second"


async def test_a_list_is_encoded_once_for_all_that_ask_and_all_that_listen(
    client: Client, registered: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    for module in ("gateway.methods.all_servers", "gateway.edge.lists"):
        original = sys.modules[module].dump

        def counted(value: object, name: str = module, dump: Any = original) -> Any:
            encoded.append(name)
            return dump(value)

        monkeypatch.setattr(f"{module}.dump", counted)
    session = await handshake(client)
    for _ in range(5):
        await ask(client, "/mcp", session, "tools/list")
        await client.ask("GET", "/mcp/tools", headers={"accept": "application/json"})
    async with AsyncExitStack() as stack:
        documents = set()
        for _ in range(5):
            way = client.open("GET", "/mcp/tools", headers={"accept": "text/event-stream"})
            event = await (await stack.enter_async_context(way)).event()
            documents.add(event and event.data)
    assert len(documents) == 1
    assert len(encoded) == 2, "one MCP list and one document, whoever asked"


async def test_one_connection_serves_all_calls(client: Client, registered: MemoryServer) -> None:
    opened = registered.opened
    answers = await asyncio.gather(*(client.ask("POST", "/mcp/tools/call", value={"name": "echo"}) for _ in range(20)))
    assert [status for status, _, _ in answers] == [200] * 20
    assert registered.opened - opened <= 1


async def test_a_server_registered_here_is_callable_there_at_once(
    client: Client, open_app: Open, servers: Servers
) -> None:
    servers["a"] = MemoryServer()
    async with open_app(poll_seconds=300) as (_, other):
        await client.ask("POST", "/mcp/servers", value={"name": "a", "url": "http://a.test/mcp"})
        status, _, _ = await other.ask("POST", "/mcp/tools/call", value={"name": "a__echo"})
        assert status == 200


async def test_with_every_hint_lost_the_poll_brings_the_change(
    client: Client, open_app: Open, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(self: object) -> bool:
        return False

    monkeypatch.setattr("gateway.stores.hints.Hints.publish", lost)
    servers["a"] = MemoryServer()
    async with open_app(poll_seconds=0.2) as (other, _):
        await client.ask("POST", "/mcp/servers", value={"name": "a", "url": "http://a.test/mcp"})
        await until(lambda: "a__echo" in str(inside(other).sync.catalogue.servers))


async def test_with_every_hint_lost_the_poll_ends_a_revoked_key_and_what_it_has_open(
    client: Client, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: object) -> bool:
        return False

    _, _, key = await client.ask("POST", "/keys", value={"name": "ann", "role": "operator"})
    headers = {"authorization": f"Bearer {key['key']}"}
    async with open_app(poll_seconds=0.2) as (_, polling), open_app(poll_seconds=300) as (_, deaf):
        for other in (polling, deaf):
            assert (await Client(other.app).ask("GET", "/whoami", headers=headers))[0] == 200
        async with Client(polling.app).open("GET", "/mcp/tools", headers=headers | STREAM) as stream:
            monkeypatch.setattr("gateway.stores.hints.Hints.publish", lost)
            monkeypatch.setattr("gateway.stores.hints.Hints.broadcast", lost)
            assert (await client.ask("DELETE", f"/keys/{key['id']}"))[0] in (200, 204)
            async with asyncio.timeout(10):
                while await stream.event() is not None:
                    pass
        assert (await Client(polling.app).ask("GET", "/whoami", headers=headers))[0] == 401
        assert (await Client(deaf.app).ask("GET", "/whoami", headers=headers))[0] == 200  # the hint was lost


async def test_a_worker_that_starts_while_an_upstream_is_down_lists_its_tools(
    client: Client, registered: MemoryServer, open_app: Open
) -> None:
    registered.down = "out"
    async with open_app() as (_, other):
        _, _, document = await other.ask("GET", "/mcp/tools", headers={"accept": "application/json"})
        assert [tool["name"] for tool in document["tools"]] == ["demo__echo"]


async def test_tools_appear_when_a_server_comes_up_with_nothing_to_call(open_app: Open, servers: Servers) -> None:
    servers["a"] = MemoryServer(down="not yet")
    async with open_app(retry_seconds=0.1) as (app, client):
        await client.ask("POST", "/mcp/servers", value={"name": "a", "url": "http://a.test/mcp"})
        servers["a"].down = None
        await until(lambda: inside(app).sync.catalogue.servers["a"].state == "ready")


async def test_an_upstream_that_says_its_list_changed_is_asked_again(open_app: Open, registered: MemoryServer) -> None:
    async with open_app() as (app, client):
        registered.tools["new"] = registered.tools["echo"]
        inside(app).discovery.changed("demo")
        await until(lambda: "demo__new" in str(inside(app).sync.catalogue.servers["demo"].names))
        assert (await client.ask("POST", "/mcp/tools/call", value={"name": "new"}))[0] == 200


async def test_without_postgres_calls_go_on_and_writes_say_why(
    client: Client, app: Application, registered: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable

    monkeypatch.setattr("gateway.stores.postgres.Postgres.transaction", gone)
    gateway = inside(app)
    await until(lambda: gateway.sync.degraded is not None)
    assert (await client.ask("POST", "/mcp/tools/call", value={"name": "echo"}))[0] == 200
    assert (await client.ask("POST", "/mcp/tools/call", value={"name": "nope"}))[0] == 404
    spec = {"name": "b", "url": "http://b.test/"}
    status, headers, problem = await client.ask("POST", "/mcp/servers", value=spec)
    assert (status, headers["retry-after"], problem["retry_after"]) == (503, "5", 5)
    status, _, state = await client.ask("GET", "/readyz")
    assert status == 200
    assert "database" in state["degraded"][0]
    monkeypatch.undo()
    await until(lambda: gateway.sync.degraded is None)


async def test_a_removed_servers_running_call_finishes(client: Client, registered: MemoryServer) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: object, emit: object) -> Any:
        began.set()
        await go_on.wait()
        return {"content": []}

    registered.tools["slow"] = slow
    await client.ask("POST", "/mcp/servers/demo/refresh")
    calling = asyncio.create_task(client.ask("POST", "/mcp/tools/call", value={"name": "slow"}))
    async with asyncio.timeout(10):
        await began.wait()
        await client.ask("DELETE", "/mcp/servers/demo")
        go_on.set()
        assert (await calling)[0] == 200
    await until(lambda: not registered.sessions)


async def test_what_hangs_at_one_server_does_not_touch_another(client: Client, servers: Servers) -> None:
    began = asyncio.Event()

    async def hang(request: object, emit: object) -> Any:
        began.set()
        await asyncio.Event().wait()

    servers |= {"a": MemoryServer(tools={"hang": hang}), "b": MemoryServer()}
    for name in servers:
        await client.ask("POST", "/mcp/servers", value={"name": name, "url": f"http://{name}.test/mcp"})
    async with client.open("POST", "/mcp/tools/call", value={"name": "hang"}, headers={"accept": "text/event-stream"}):
        async with asyncio.timeout(10):
            await began.wait()
        assert (await client.ask("POST", "/mcp/tools/call", value={"name": "b__echo"}))[0] == 200


async def test_many_waiters_share_one_failing_handshake(client: Client, registered: MemoryServer) -> None:
    registered.forget_sessions()
    registered.down = "gone"
    answers = await asyncio.gather(*(client.ask("POST", "/mcp/tools/call", value={"name": "echo"}) for _ in range(10)))
    assert [status for status, _, _ in answers] == [502] * 10


async def test_a_flood_of_requests_ends_the_call_and_nothing_else(client: Client, registered: MemoryServer) -> None:
    async def flood(request: Request, emit: Emit) -> Any:
        for number in range(5000):
            await emit(Request(number, "ping"))
        return {}

    registered.tools["flood"] = flood
    await client.ask("POST", "/mcp/servers/demo/refresh")
    status, _, problem = await client.ask("POST", "/mcp/tools/call", value={"name": "flood"})
    assert status == 502
    assert "100 requests" in problem["detail"]
    assert len(registered.posted) <= 101
    assert (await client.ask("POST", "/mcp/tools/call", value={"name": "echo"}))[0] == 200


async def test_a_server_that_changes_its_list_whenever_it_is_asked_is_not_asked_for_ever(
    open_app: Open, servers: Servers
) -> None:
    async def listed(request: Request, emit: Emit) -> Any:
        return {}

    class Restless(MemoryServer):
        async def answer(self, request: Request, emit: Emit) -> Any:
            await emit(Notification("notifications/tools/list_changed"))
            return await super().answer(request, emit)

    servers["restless"] = Restless(tools={"t": listed})
    async with open_app() as (_, client):
        await client.ask("POST", "/mcp/servers", value={"name": "r", "url": "http://restless.test/mcp"})
        opened = servers["restless"].opened
        await asyncio.sleep(1.5)
        assert servers["restless"].opened == opened


async def test_a_loop_that_meets_a_surprise_goes_on(
    open_app: Open, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers["a"] = MemoryServer(down="not yet")
    async with open_app(retry_seconds=0.1) as (app, client):
        await client.ask("POST", "/mcp/servers", value={"name": "a", "url": "http://a.test/mcp"})

        def surprise(*_: Any) -> Any:
            raise RuntimeError("nobody expected this")

        with monkeypatch.context() as patched:
            patched.setattr("gateway.registry.servers.ServerTable.claim_due", surprise)
            await asyncio.sleep(1.2)
        servers["a"].down = None
        await until(lambda: inside(app).sync.catalogue.servers["a"].state == "ready")


async def test_what_can_not_be_taken_is_a_reason_and_no_silence(client: Client, servers: Servers) -> None:
    servers["odd"] = MemoryServer(down="a \0 zero")
    _, _, stored = await client.ask("POST", "/mcp/servers", value={"name": "odd", "url": "http://odd.test/mcp"})
    assert (stored["state"], stored["reason"]) == ("unreachable", "a  zero")


async def test_a_list_that_is_too_long_is_a_reason_and_not_a_burden(client: Client, servers: Servers) -> None:
    async def nothing(request: Request, emit: Emit) -> Any:
        return {}

    servers["vast"] = MemoryServer(tools={f"t{number}": nothing for number in range(10_001)}, page_size=100_000)
    _, _, stored = await client.ask("POST", "/mcp/servers", value={"name": "vast", "url": "http://vast.test/mcp"})
    assert stored["state"] == "unreachable"
    assert "lists too much" in stored["reason"]
    assert stored["counts"]["tools"] == 0
