import asyncio
import json

import pytest

from gateway.asgi import Application
from gateway.upstream.memory import MemoryServer
from tests.asgi import Answer, Client
from tests.fix_gateway import Open, Servers

pytestmark = pytest.mark.anyio
SSE = {"accept": "text/event-stream"}
LISTS = ["servers", "tools", "resources", "prompts"]


async def register(client: Client, name: str) -> None:
    status, _, _ = await client.ask("POST", "/mcp/servers", value={"name": name, "url": f"http://{name}.test/mcp"})
    assert status == 200


async def next_names(answer: Answer, kind: str) -> list[str]:
    event = await answer.event()
    assert event is not None
    assert event.name == kind
    document = json.loads(event.data)
    assert event.id == str(document["revision"])
    return [item["name"] for item in document[kind]]


@pytest.mark.parametrize("kind", LISTS)
async def test_head_has_the_streams_head_and_no_body(client: Client, kind: str) -> None:
    status, headers, body = await client.ask("HEAD", f"/mcp/{kind}")
    assert (status, headers["content-type"], body) == (200, "text/event-stream", b"")
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("accept", ["*/*", None])
async def test_without_a_wish_the_stream_ends_after_the_snapshot(client: Client, kind: str, accept: str | None) -> None:
    async with client.open("GET", f"/mcp/{kind}", headers={"accept": accept} if accept else {}) as answer:
        [event] = await answer.events()
    assert (event.name, json.loads(event.data)[kind]) == (kind, [])


@pytest.mark.parametrize("kind", LISTS)
async def test_json_gets_one_document(client: Client, registered: MemoryServer, kind: str) -> None:
    status, headers, document = await client.ask("GET", f"/mcp/{kind}", headers={"accept": "application/json"})
    assert (status, headers["content-type"]) == (200, "application/json")
    assert isinstance(document["revision"], int)
    assert isinstance(document[kind], list)


async def test_a_tool_is_listed_under_its_public_name_with_its_server(client: Client, registered: MemoryServer) -> None:
    _, _, document = await client.ask("GET", "/mcp/tools", headers={"accept": "application/json"})
    assert document["tools"] == [{"name": "demo__echo", "inputSchema": {"type": "object"}, "server": "demo"}]


async def test_a_live_list_carries_changes_as_they_happen(client: Client, servers: Servers) -> None:
    servers |= {"a": MemoryServer(), "b": MemoryServer()}
    async with client.open("GET", "/mcp/tools", headers=SSE) as answer:
        assert await next_names(answer, "tools") == []
        await register(client, "a")
        assert await next_names(answer, "tools") == ["a__echo"]
        await register(client, "b")
        assert await next_names(answer, "tools") == ["a__echo", "b__echo"]
        await client.ask("DELETE", "/mcp/servers/a")
        assert await next_names(answer, "tools") == ["b__echo"]


async def test_a_change_elsewhere_is_no_event(client: Client, servers: Servers) -> None:
    servers |= {"a": MemoryServer(), "b": MemoryServer()}
    async with client.open("GET", "/mcp/tools", headers=SSE) as answer:
        await next_names(answer, "tools")
        await register(client, "a")
        assert await next_names(answer, "tools") == ["a__echo"]
        await client.ask("PATCH", "/mcp/servers/a", value={"tags": ["x"]})
        await register(client, "b")
        assert await next_names(answer, "tools") == ["a__echo", "b__echo"]


async def test_a_change_at_one_worker_reaches_the_streams_of_another(
    open_app: Open, client: Client, servers: Servers
) -> None:
    servers["a"] = MemoryServer()
    async with (
        open_app() as (_, other),
        other.open("GET", "/mcp/servers", headers=SSE) as answer,
    ):
        assert await next_names(answer, "servers") == []
        await register(client, "a")
        assert await next_names(answer, "servers") == ["a"]


async def test_a_silent_stream_is_kept_alive_and_ends_cleanly_on_drain(open_app: Open) -> None:
    async with (
        open_app(keepalive_seconds=0.05) as (app, client),
        client.open("GET", "/mcp/servers", headers=SSE) as answer,
    ):
        await answer.event()
        assert await answer.chunk() == b": keep-alive\n\n"
        app.draining.set()
        async with asyncio.timeout(10):
            assert await answer.event() is None


async def test_readyz_and_streams_follow_the_drain(app: Application, client: Client) -> None:
    assert (await client.ask("GET", "/readyz"))[0] == 200
    app.draining.set()
    status, headers, state = await client.ask("GET", "/readyz")
    assert (status, state["status"], headers["connection"]) == (503, "draining", "close")
