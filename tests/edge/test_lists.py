import asyncio
import json
from typing import Any

import pytest

from gateway.edge.app import Application
from gateway.protocol.messages import Request
from gateway.upstream.memory import Emit, MemoryServer
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


async def test_what_tools_cost_a_model(client: Client, registered: MemoryServer) -> None:
    registered.told["echo"] = {"description": "x" * 4300, "title": "not counted" * 100}
    await client.ask("POST", "/mcp/servers/demo/refresh")
    await client.ask("PUT", "/mcp/toolsets/t", value={"include": [{"servers": ["demo"]}], "pinned": ["demo__echo"]})
    _, _, listed = await client.ask("GET", "/mcp/tools?tokens=true", headers={"accept": "application/json"})
    [tool] = listed["tools"]
    assert 1000 <= tool["tokens"] <= 1030
    assert listed["tokens"]["full"] == listed["tokens"]["servers"]["demo"] == tool["tokens"]
    assert 250 < listed["tokens"]["search"] < 400
    _, _, toolsets = await client.ask("GET", "/mcp/toolsets?tokens=true", headers={"accept": "application/json"})
    assert toolsets["toolsets"][0]["tokens"]["full"] == tool["tokens"]
    assert toolsets["toolsets"][0]["tokens"]["search"] == listed["tokens"]["search"] + tool["tokens"]
    _, _, answer = await client.ask(
        "POST", "/rpc", value={"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"tokens": 1}}
    )
    assert answer["error"]["data"] == {"field": "tokens"}
    assert (await client.ask("GET", "/mcp/tools?tokens=yes", headers={"accept": "application/json"}))[0] == 400
    _, _, plain = await client.ask("GET", "/mcp/tools", headers={"accept": "application/json"})
    assert "tokens" not in str(plain)


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


async def many(client: Client, servers: Servers) -> None:
    for name, tags in (("docs", ["public"]), ("mail", ["team"])):
        servers[name] = MemoryServer(
            tools={f"{verb}.{number}": _nothing for verb in ("find", "send") for number in range(3)},
            resources=[{"uri": f"{name}://{number}", "name": f"r{number}"} for number in range(3)],
            templates=[{"uriTemplate": f"{name}://x/{{id}}", "name": "t"}],
            prompts=[{"name": "greet", "description": "Say HELLO"}],
        )
        body = {"name": name, "url": f"http://{name}.test/mcp", "tags": tags, "description": f"All {name}"}
        await client.ask("POST", "/mcp/servers", value=body)


async def _nothing(request: Request, emit: Emit) -> Any:
    return {"content": []}


@pytest.mark.parametrize(
    ("path", "kind", "count"),
    [
        ("/mcp/tools", "tools", 12),
        ("/mcp/tools?server=docs", "tools", 6),
        ("/mcp/tools?server=docs&server=mail", "tools", 12),
        ("/mcp/tools?server=none", "tools", 0),
        ("/mcp/tools?tag=team&q=FIND", "tools", 3),
        ("/mcp/tools?q=find.1+docs", "tools", 1),
        ("/mcp/prompts?q=hello", "prompts", 2),
        ("/mcp/resources?server=mail", "resources", 3),
        ("/mcp/servers?tag=public", "servers", 1),
        ("/mcp/servers?q=all%20mail", "servers", 1),
    ],
)
async def test_lists_take_a_filter_as_json_and_as_streams(
    client: Client, servers: Servers, path: str, kind: str, count: int
) -> None:
    await many(client, servers)
    _, _, document = await client.ask("GET", path, headers={"accept": "application/json"})
    assert (len(document[kind]), document["total"], document["next_cursor"]) == (count, count, None)
    async with client.open("GET", path, headers=SSE) as stream:
        event = await stream.event()
        assert event is not None
        assert json.loads(event.data)[kind] == document[kind]


@pytest.mark.parametrize("kind", ["servers", "tools", "resources"])
async def test_pages_hold_everything_once(client: Client, servers: Servers, kind: str) -> None:
    await many(client, servers)
    json_only = {"accept": "application/json"}
    _, _, whole = await client.ask("GET", f"/mcp/{kind}", headers=json_only)
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        _, _, page = await client.ask("GET", f"/mcp/{kind}?limit=2&cursor={cursor}", headers=json_only)
        assert page["total"] == len(whole[kind])
        assert len(page[kind]) <= 2
        found += page[kind]
        cursor = page["next_cursor"]
    assert found == whole[kind]


@pytest.mark.parametrize(
    ("query", "accept", "status", "said"),
    [
        ("color=red", "application/json", 400, "lists take server, tag, q, limit, cursor"),
        ("limit=0", "application/json", 400, "from 1 to 10000"),
        ("limit=x", "application/json", 400, "from 1 to 10000"),
        ("q=" + "a+" * 101, "application/json", 400, "at most 200 characters"),
        ("limit=5", "text/event-stream", 400, "a stream carries the whole list"),
        ("cursor=abc", "*/*", 400, "a stream carries the whole list"),
        ("cursor=%C3%BC", "application/json", 422, "begin again"),
    ],
)
async def test_what_a_list_does_not_take_is_told(
    client: Client, query: str, accept: str, status: int, said: str
) -> None:
    got, _, problem = await client.ask("GET", f"/mcp/tools?{query}", headers={"accept": accept})
    assert (got, said in problem["detail"]) == (status, True), problem


async def test_json_rpc_lists_take_the_same(client: Client, servers: Servers) -> None:
    await many(client, servers)

    async def ask(method: str, **params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        _, _, answer = await client.ask("POST", "/rpc", value=body)
        return answer

    answer = await ask("tools/list", server="docs", q="find", limit=2)
    assert [tool["name"] for tool in answer["result"]["tools"]] == ["docs__find.0", "docs__find.1"]
    assert answer["result"]["total"] == 3
    last = await ask("tools/list", server="docs", q="find", limit=2, cursor=answer["result"]["nextCursor"])
    assert [tool["name"] for tool in last["result"]["tools"]] == ["docs__find.2"]
    assert "nextCursor" not in last["result"]
    assert [each["name"] for each in (await ask("mcp.servers.list", tag=["team"]))["result"]["servers"]] == ["mail"]
    for wrong in ({"color": "red"}, {"limit": 0}, {"limit": "5"}, {"q": 5}, {"server": [5]}):
        assert (await ask("tools/list", **wrong))["error"]["code"] == -32602


async def test_where_names_are_strict_either_name_can_be_called(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer(tools={"a.b": _nothing, "plain": _nothing})
    async with open_app(name_chars="strict") as (_, client):
        await client.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
        _, _, document = await client.ask("GET", "/mcp/tools", headers={"accept": "application/json"})
        assert [tool["name"] for tool in document["tools"]] == ["demo__a_b", "demo__plain"]
        for name in ("demo__a_b", "demo__a.b", "a.b", "plain", "demo__plain"):
            status, _, answer = await client.ask("POST", "/mcp/tools/call", value={"name": name})
            assert status == 200, name
        assert answer["tool"] == "demo__plain"
    async with open_app() as (_, client):
        assert (await client.ask("POST", "/mcp/tools/call", value={"name": "demo__a_b"}))[0] == 200
        _, _, document = await client.ask("GET", "/mcp/tools", headers={"accept": "application/json"})
        assert document["tools"][0]["name"] == "demo__a.b"
