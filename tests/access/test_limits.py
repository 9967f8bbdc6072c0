"""Bounds about load: a server's share, a principal's share, and the circuit breaker."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.protocol.messages import Notification, Request
from gateway.tasks import end
from gateway.upstream.memory import Emit, MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import initialize, request

pytestmark = pytest.mark.anyio
SSE = {"accept": "text/event-stream"}


class Hanging:
    """A tool that never answers, and says when so many wait."""

    def __init__(self, count: int = 3) -> None:
        self.waiting = 0
        self.count = count
        self.full = asyncio.Event()

    async def __call__(self, request: Request, emit: Emit) -> Any:
        self.waiting += 1
        if self.waiting == self.count:
            self.full.set()
        await asyncio.Event().wait()


async def register(client: Client, servers: Servers, **made: MemoryServer) -> None:
    servers |= made
    for name in made:
        await client.ask("POST", "/mcp/servers", value={"name": name, "url": f"http://{name}.test/mcp"})


async def test_a_hanging_server_exhausts_its_own_share_only(open_app: Open, servers: Servers) -> None:
    hang = Hanging()
    async with open_app(max_server_calls=3) as (_, client), AsyncExitStack() as stack:
        await register(client, servers, bad=MemoryServer(tools={"hang": hang}), good=MemoryServer())
        for _ in range(3):
            await stack.enter_async_context(client.open("POST", "/mcp/tools/call", value={"name": "hang"}, headers=SSE))
        async with asyncio.timeout(10):
            await hang.full.wait()
        status, headers, problem = await client.ask("POST", "/mcp/tools/call", value={"name": "hang"})
        assert (status, headers["retry-after"], problem["server"]) == (429, "1", "bad")
        assert (await client.ask("POST", "/mcp/tools/call", value={"name": "good__echo"}))[0] == 200


async def test_a_principal_has_a_share_of_requests_and_of_streams(open_app: Open, servers: Servers) -> None:
    hang = Hanging()
    async with open_app(max_in_flight=3, max_streams=2) as (_, client), AsyncExitStack() as stack:
        await register(client, servers, bad=MemoryServer(tools={"hang": hang}))
        for _ in range(3):
            await stack.enter_async_context(client.open("POST", "/mcp/tools/call", value={"name": "hang"}, headers=SSE))
        status, headers, _ = await client.ask("POST", "/mcp/tools/call", value={"name": "hang"})
        assert (status, headers["retry-after"]) == (429, "1")
        for _ in range(2):
            await stack.enter_async_context(client.open("GET", "/mcp/tools", headers=SSE))
        assert (await client.ask("GET", "/mcp/tools", headers=SSE))[0] == 429
        document = {"accept": "application/json"}
        assert (await client.ask("GET", "/mcp/tools", headers=document))[0] == 200


async def test_places_are_given_back(open_app: Open, servers: Servers) -> None:
    async with open_app(max_in_flight=1, max_streams=1) as (_, client):
        await register(client, servers, good=MemoryServer())
        for _ in range(3):
            assert (await client.ask("POST", "/mcp/tools/call", value={"name": "echo"}))[0] == 200
            assert (await client.ask("GET", "/mcp/tools"))[0] == 200


async def test_a_server_that_fails_again_and_again_is_left_alone_and_tried_again(
    open_app: Open, servers: Servers
) -> None:
    async with open_app(breaker_failures=3, retry_seconds=3600, refresh_seconds=3600) as (_, client):
        await register(client, servers, flaky=MemoryServer())
        servers["flaky"].forget_sessions()
        servers["flaky"].down = "gone"
        for _ in range(3):
            status, _, problem = await client.ask("POST", "/mcp/tools/call", value={"name": "echo"})
            assert (status, problem["title"]) == (502, "Server unreachable")
        status, headers, problem = await client.ask("POST", "/mcp/tools/call", value={"name": "echo"})
        assert (status, problem["title"], headers["retry-after"]) == (502, "Server suspended", "1")
        assert "gone" in problem["detail"]
        assert (await client.ask("GET", "/mcp/servers/flaky"))[2]["breaker"] == "open"
        servers["flaky"].down = None
        assert (await client.ask("POST", "/mcp/servers/flaky/refresh"))[2]["state"] == "ready"
        assert (await client.ask("POST", "/mcp/tools/call", value={"name": "echo"}))[0] == 200
        assert (await client.ask("GET", "/mcp/servers/flaky"))[2]["breaker"] == "closed"


async def test_progress_extends_a_calls_deadline_up_to_a_cap(open_app: Open, servers: Servers) -> None:
    async def steps(request: Request, emit: Emit) -> Any:
        token = request.params["_meta"]["progressToken"]
        for step in range(10):
            await asyncio.sleep(0.1)
            await emit(Notification("notifications/progress", {"progressToken": token, "progress": step}))
        return {"content": []}

    for cap, last in ((60.0, "result"), (0.5, "error")):
        async with open_app(call_cap_seconds=cap) as (_, client):
            await register(client, servers, a=MemoryServer(tools={"steps": steps}))
            await client.ask("PATCH", "/mcp/servers/a", value={"timeout_seconds": 0.4})
            async with client.open("POST", "/mcp/tools/call", value={"name": "steps"}, headers=SSE) as answer:
                events = await answer.events()
            assert events[-1].name == last
            assert events[0].name == "progress"


async def test_slow_calls_do_not_shut_a_server_off_that_answers_others(open_app: Open, servers: Servers) -> None:
    hang = Hanging()
    async with open_app(call_seconds=0.4, breaker_failures=2) as (_, client):
        server = MemoryServer()
        server.tools |= {"hang": hang}
        await register(client, servers, bad=server)

        async def late() -> int:
            return (await client.ask("POST", "/mcp/tools/call", value={"name": "bad__hang"}))[0]

        async def others() -> None:
            while True:
                assert (await client.ask("POST", "/mcp/tools/call", value={"name": "bad__echo"}))[0] == 200
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as tasks:
            calling = tasks.create_task(others())
            assert [await late() for _ in range(4)] == [504] * 4
            calling.cancel()
        assert [await late() for _ in range(3)] == [504, 504, 502]  # now nobody gets an answer


async def test_one_session_has_half_of_a_servers_share(open_app: Open, servers: Servers) -> None:
    hang = Hanging()
    async with open_app(max_server_calls=6) as (_, client):
        server = MemoryServer()
        server.tools |= {"hang": hang}
        await register(client, servers, bad=server)
        greedy, other = await initialize(client, "/mcp"), await initialize(client, "/mcp")
        bodies = [request("tools/call", number, name="bad__hang") for number in range(3)]
        calls = [asyncio.create_task(client.ask("POST", "/mcp", value=body, headers=greedy)) for body in bodies]
        async with asyncio.timeout(10):
            await hang.full.wait()
        _, _, answer = await client.ask("POST", "/mcp", value=request("tools/call", name="bad__echo"), headers=greedy)
        assert answer["error"]["code"] == -32059
        assert "Your session has 3 calls" in answer["error"]["message"]
        answered = await client.ask("POST", "/mcp", value=request("tools/call", name="bad__echo"), headers=other)
        assert answered[2]["result"]
        assert (await client.ask("POST", "/mcp/tools/call", value={"name": "bad__echo"}))[0] == 200
        await end(calls)


async def test_a_key_leaves_room_for_others_and_so_does_the_master_key(open_app: Open, servers: Servers) -> None:
    hang = Hanging(4)
    async with open_app(max_server_calls=8) as (app, client):
        server = MemoryServer()
        server.tools |= {"hang": hang}
        await register(client, servers, bad=server)
        keys = []
        for name in ("greedy", "other"):
            value = {"name": name, "grants": {"allow": [{"servers": ["bad"]}]}}
            keys.append(Client(app, (await client.ask("POST", "/keys", value=value))[2]["key"]))
        greedy, other = keys
        first, second = await initialize(greedy, "/mcp"), await initialize(greedy, "/mcp")
        body = request("tools/call", name="bad__hang")
        calls = [
            asyncio.create_task(greedy.ask("POST", "/mcp", value={**body, "id": number}, headers=session))
            for number, session in enumerate((first, first, second))
        ]
        calls.append(asyncio.create_task(greedy.ask("POST", "/mcp/tools/call", value={"name": "bad__hang"})))
        async with asyncio.timeout(10):
            await hang.full.wait()
        for _ in range(2):  # in a session of its own, or none
            status, headers, problem = await greedy.ask("POST", "/mcp/tools/call", value={"name": "bad__echo"})
            assert (status, headers["retry-after"]) == (429, "1")
            assert "Your key has 4 calls" in problem["detail"]
        assert (await other.ask("POST", "/mcp/tools/call", value={"name": "bad__echo"}))[0] == 200
        assert (await client.ask("POST", "/mcp/tools/call", value={"name": "bad__echo"}))[0] == 200
        await end(calls)
        hang.full.clear()
        hang.waiting, hang.count = 0, 7
        calls = [
            asyncio.create_task(client.ask("POST", "/mcp/tools/call", value={"name": "bad__hang"})) for _ in range(7)
        ]
        async with asyncio.timeout(10):
            await hang.full.wait()
        status, _, problem = await client.ask("POST", "/mcp/tools/call", value={"name": "bad__echo"})
        assert (status, "Your master key has 7 calls" in problem["detail"]) == (429, True)
        assert (await other.ask("POST", "/mcp/tools/call", value={"name": "bad__echo"}))[0] == 200
        await end(calls)


async def test_header_lines_are_counted(open_app: Open) -> None:
    async with open_app(max_fields=20) as (_, client):
        few, many = ({f"x-{number}": "y" for number in range(count)} for count in (10, 30))
        assert (await client.ask("GET", "/mcp/tools", headers=few))[0] == 200
        status, _, problem = await client.ask("GET", "/mcp/tools", headers=many)
        assert (status, problem["limit"]) == (431, 20)
