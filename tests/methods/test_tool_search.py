import asyncio
import json
from importlib.util import find_spec
from typing import Any

import pytest

from gateway.protocol.messages import Notification, Request
from gateway.upstream.memory import Emit, MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import BOTH, STREAM, ask, asking, handshake, initialize, inside, next_message, request, tell
from tests.waiting import until

pytestmark = pytest.mark.anyio
META = ["search_tools", "describe_tools", "call_read_tool", "call_tool"]
AT_MCP, OWN, TOOLSET = "/mcp?tools=search", "/mcp/servers/docs/mcp?tools=search", "/mcp/toolsets/t/mcp?tools=search"
REVISIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]


async def _said(request: Request, emit: Emit) -> Any:
    await emit(Notification("notifications/message", {"level": "info", "data": "under way"}))
    return {"content": [{"type": "text", "text": f"{request.params['name']} {request.params.get('arguments')}"}]}


@pytest.fixture
async def docs(client: Client, servers: Servers) -> MemoryServer:
    """Two servers; a toolset with all of them under bare names."""
    servers["docs"] = MemoryServer(tools=dict.fromkeys(["find_documents", "remove_document"], _said))
    servers["docs"].told["find_documents"] = {
        "description": "Searches the library. Returns titles.",
        "annotations": {"readOnlyHint": True},
        "title": "Find",
    }
    servers["docs"].told["remove_document"] = {"description": "Removes a document for good."}
    servers["docs"].schemas["find_documents"] = {"type": "object", "properties": {"words": {"type": "string"}}}
    servers["chat"] = MemoryServer(tools=dict.fromkeys(["send_message"], _said))
    servers["chat"].told["send_message"] = {"description": "Posts to a channel."}
    for name in ("docs", "chat"):
        spec = {"name": name, "url": f"http://{name}.test/mcp", "description": f"the {name} of all teams"}
        assert (await client.ask("POST", "/mcp/servers", value=spec))[2]["state"] == "ready"
    toolset = {"include": [{"servers": ["*"]}], "names": "bare", "pinned": ["send_message", "gone"]}
    assert (await client.ask("PUT", "/mcp/toolsets/t", value=toolset))[0] == 200
    return servers["docs"]


async def test_ranking_by_meaning_also(open_app: Open, servers: Servers) -> None:
    if find_spec("wordllama") is None:
        pytest.skip("there is no wheel of wordllama for this machine")
    servers["home"] = MemoryServer(tools=dict.fromkeys(["play_song", "create_invoice"], _said))
    servers["home"].told["play_song"] = {"description": "Plays a song on the loudspeakers."}
    for ranking, names in (("words", []), ("semantic", ["home__play_song"])):
        async with open_app(tool_ranking=ranking) as (_, client):
            await client.ask("PUT", "/mcp/servers/home", value={"url": "http://home.test/mcp"})
            answer = found(await use(client, "search_tools", query="melody"))
            assert [each["name"] for each in answer["tools"]] == names


async def use(client: Client, tool: str, address: str = AT_MCP, session: Any = None, **arguments: Any) -> Any:
    session = session or await handshake(client, address)
    body = request("tools/call", 1, name=tool, arguments=arguments)
    _, _, answer = await client.ask("POST", address, value=body, headers=session)
    if isinstance(answer, bytes):
        return [json.loads(line[6:]) for line in answer.decode().splitlines() if line.startswith("data: {")][-1]
    return answer


def found(answer: Any) -> Any:
    """What a meta tool answered: the same as text and as structured content."""
    content = answer["result"]["structuredContent"]
    assert json.loads(answer["result"]["content"][0]["text"]) == content
    return content


# --- lists ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", REVISIONS)
@pytest.mark.parametrize("address", [AT_MCP, OWN, TOOLSET])
async def test_four_tools_stand_for_all(client: Client, docs: MemoryServer, address: str, version: str) -> None:
    session = await handshake(client, address, version)
    listed = (await ask(client, address, session, "tools/list"))["tools"]
    assert [tool["name"] for tool in listed] == META + (["send_message"] if address == TOOLSET else [])
    hints = {tool["name"]: tool["annotations"] for tool in listed[:4]}
    assert [name for name in META if hints[name]["readOnlyHint"]] == META[:3]
    assert hints["call_tool"]["destructiveHint"] is True
    body = request("initialize", protocolVersion=version, capabilities={}, clientInfo={"name": "t", "version": "1"})
    _, _, answer = await client.ask("POST", address, value=body, headers=BOTH)
    assert "Find them with search_tools" in answer["result"]["instructions"]


async def test_in_mode_full_nothing_is_another(client: Client, docs: MemoryServer) -> None:
    for address in ("/mcp", "/mcp?tools=full", "/mcp?other=1", "/mcp/toolsets/t/mcp"):
        session = await handshake(client, address)
        listed = (await ask(client, address, session, "tools/list"))["tools"]
        assert len(listed) == 3
        assert (await use(client, "search_tools", address, session, query="x"))["error"]["code"] == -32602


async def test_which_mode_wins(open_app: Open, servers: Servers) -> None:
    servers["docs"] = MemoryServer(tools={f"tool_{number}": _said for number in range(20)})

    async def count(client: Client, address: str) -> int:
        session = await handshake(client, address)
        return len((await ask(client, address, session, "tools/list"))["tools"])

    async with open_app(tools_mode="search") as (_, client):
        await client.ask("POST", "/mcp/servers", value={"name": "docs", "url": "http://docs.test/mcp"})
        for slug, mode in (("plain", None), ("whole", "full"), ("auto", "auto")):
            spec = {"include": [{"servers": ["docs"]}], "mode": mode}
            assert (await client.ask("PUT", f"/mcp/toolsets/{slug}", value=spec))[2]["mode"] == mode
        assert await count(client, "/mcp") == await count(client, "/mcp/toolsets/plain/mcp") == 4
        assert await count(client, "/mcp?tools=full") == await count(client, "/mcp/toolsets/whole/mcp") == 20
        assert await count(client, "/mcp/toolsets/whole/mcp?tools=search") == 4
        assert await count(client, "/mcp/toolsets/auto/mcp") == 20
        assert (await client.ask("POST", "/rpc", value=request("tools/list")))[2]["result"]["total"] == 20
    async with open_app(tools_mode="auto", search_tokens=20) as (_, client):
        assert await count(client, "/mcp") == 4
    async with open_app(tools_mode="auto", search_tokens=2_000) as (_, client):
        assert await count(client, "/mcp") == 20


@pytest.mark.parametrize("query", ["tools=sometimes", "tools=", "tools=search&tools=full"])
async def test_a_mode_that_is_none(client: Client, query: str) -> None:
    session = await handshake(client)
    _, _, answer = await client.ask("POST", f"/mcp?{query}", value=request("tools/list"), headers=session)
    assert "'tools' must be full, search or auto" in answer["error"]["message"]
    assert (await client.ask("GET", f"/sse?{query}", headers=STREAM))[0] == 400


async def test_a_real_tool_keeps_its_name(client: Client, servers: Servers) -> None:
    servers["docs"] = MemoryServer(tools=dict.fromkeys(["call_tool", "other"], _said))
    for name, prefix in (("docs", None), ("bare", "")):
        servers[name] = servers["docs"]
        await client.ask(
            "POST", "/mcp/servers", value={"name": name, "url": f"http://{name}.test/mcp", "prefix": prefix}
        )
    session = await handshake(client, AT_MCP)
    listed = await ask(client, AT_MCP, session, "tools/list")
    assert [tool["name"] for tool in listed["tools"]] == [*META[:3], "call_tool_gateway"]
    assert listed["_meta"] == {"io.mcp-gateway/renamed": {"call_tool": "call_tool_gateway"}}
    assert "call_tool_gateway" in listed["tools"][0]["description"]
    assert (await use(client, "call_tool", session=session))["result"]["content"][0]["text"] == "call_tool {}"
    answer = await use(client, "call_tool_gateway", session=session, name="call_tool", arguments={"a": 1})
    assert answer["result"]["content"][0]["text"] == "call_tool {'a': 1}"


# --- finding ----------------------------------------------------------------------------------------------------------


async def test_tools_are_found_by_what_they_do(client: Client, docs: MemoryServer) -> None:
    [first, *_] = found(await use(client, "search_tools", query="look up something in the library"))["tools"]
    assert first == {
        "name": "docs__find_documents",
        "description": "Searches the library.",
        "inputSchema": {"type": "object", "properties": {"words": {"type": "string"}}},
        "annotations": {"readOnlyHint": True},
    }
    [first, *_] = found(await use(client, "search_tools", query="tell the team", detail="brief", limit=1))["tools"]
    assert first == {"name": "chat__send_message", "description": "Posts to a channel."}
    [only] = found(await use(client, "search_tools", query="document", server="docs", limit=1))["tools"]
    assert only["name"].startswith("docs__")
    assert found(await use(client, "search_tools", query="xyzzy"))["tools"] == []
    [first, *_] = found(await use(client, "search_tools", OWN, query="library"))["tools"]
    assert first["name"] == "find_documents"
    [first, *_] = found(await use(client, "search_tools", TOOLSET, query="library"))["tools"]
    assert first["name"] == "find_documents"


async def test_an_empty_query_lists_the_servers(client: Client, docs: MemoryServer) -> None:
    for query in ("", "  "):
        assert found(await use(client, "search_tools", query=query))["servers"] == [
            {"server": "chat", "tools": 1, "description": "the chat of all teams"},
            {"server": "docs", "tools": 2, "description": "the docs of all teams"},
        ]
    listed = found(await use(client, "search_tools", query="", server="docs", limit=1))
    assert (listed["total"], [tool["name"] for tool in listed["tools"]]) == (2, ["docs__find_documents"])


async def test_definitions_are_told_whole(client: Client, docs: MemoryServer) -> None:
    told = found(await use(client, "describe_tools", names=["docs__find_documents", "send_message", "nope"]))
    assert [tool["name"] for tool in told["tools"]] == ["docs__find_documents", "chat__send_message"]
    assert told["tools"][0]["annotations"] == {"readOnlyHint": True}
    assert told["unknown"] == ["nope"]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("search_tools", {"query": "x" * 501}, "'query' must be a text of at most 500 characters"),
        ("search_tools", {"query": 5}, "'query' must be a text"),
        ("search_tools", {"query": "x", "limit": 26}, "'limit' must be a number from 1 to 25"),
        ("search_tools", {"query": "x", "limit": True}, "'limit' must be a number"),
        ("search_tools", {"query": "x", "detail": "all"}, "'detail' must be one of schema, brief"),
        ("search_tools", {"query": "x", "server": "nope"}, "There is no server 'nope'; there are chat, docs."),
        ("search_tools", {"query": "x", "colour": 1}, "There is no argument 'colour'"),
        ("describe_tools", {}, "'names' must be a list"),
        ("describe_tools", {"names": ["x"] * 11}, "'names' must be a list of at most 10"),
    ],
)
async def test_wrong_arguments_are_a_tools_error(
    client: Client, docs: MemoryServer, name: str, arguments: Any, said: str
) -> None:
    answer = await use(client, name, **arguments)
    assert answer["result"]["isError"] is True
    assert said in answer["result"]["content"][0]["text"]


@pytest.mark.parametrize("query", ["\x00\x1b[31m", "''\"; DROP", "\u017f" * 400, "((((" * 100, "\ud7ff\uffff"])
async def test_any_text_may_be_searched_for(client: Client, docs: MemoryServer, query: str) -> None:
    assert found(await use(client, "search_tools", query=query)).keys() <= {"tools", "servers"}


async def test_what_changes_is_found_at_once(client: Client, docs: MemoryServer) -> None:
    session = await handshake(client, AT_MCP)
    assert found(await use(client, "search_tools", session=session, query="translate"))["tools"] == []
    docs.tools["translate_text"] = _said
    await client.ask("POST", "/mcp/servers/docs/refresh")
    [first, *_] = found(await use(client, "search_tools", session=session, query="translate"))["tools"]
    assert first["name"] == "docs__translate_text"
    indexes = inside(client.app).tool_indexes  # type: ignore[arg-type]
    before = list(indexes._known.values())[-1].result()
    await client.ask("PATCH", "/mcp/servers/docs", value={"title": "other"})
    await use(client, "search_tools", session=session, query="translate")
    after = list(indexes._known.values())[-1].result()
    assert after is not before
    await client.ask("PUT", "/mcp/toolsets/more", value={"include": []})  # another catalogue, with the same servers
    await use(client, "search_tools", session=session, query="translate")
    assert list(indexes._known.values())[-1].result() is after


async def test_callers_with_the_same_share_an_index(client: Client, docs: MemoryServer) -> None:
    await asyncio.gather(*(use(client, "search_tools", query="library") for _ in range(5)))
    assert len(inside(client.app).tool_indexes._known) == 1  # type: ignore[arg-type]


# --- calling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [AT_MCP, OWN, TOOLSET])
async def test_a_tool_is_called_by_its_name_in_three_ways(client: Client, docs: MemoryServer, address: str) -> None:
    name = "docs__find_documents" if address == AT_MCP else "find_documents"
    said = "find_documents {'words': 'x'}"
    session = await handshake(client, address)
    assert (await use(client, name, address, session, words="x"))["result"]["content"][0]["text"] == said
    for meta in ("call_read_tool", "call_tool"):
        answer = await use(client, meta, address, session, name=name, arguments={"words": "x"})
        assert answer["result"]["content"][0]["text"] == said, meta
    answer = await use(client, "call_tool", address, session, name=name)
    assert answer["result"]["content"][0]["text"] == "find_documents None"


async def test_call_read_tool_calls_what_is_believed_to_read(client: Client, docs: MemoryServer) -> None:
    session = await handshake(client, AT_MCP)

    async def read(name: str = "docs__find_documents") -> Any:
        return await use(client, "call_read_tool", session=session, name=name)

    async def is_refused(name: str = "docs__find_documents") -> bool:
        result = (await read(name))["result"]  # a tool error: the model takes the other one
        said = f"The tool {name!r} may do more than read; call it with call_tool."
        return bool(result.get("isError")) and result["content"][0]["text"] == said

    assert await is_refused("docs__remove_document")
    assert not any(each.method == "tools/call" for each in docs.requests)
    assert "Did you mean 'docs__find_documents'?" in (await read("docs__find_document"))["error"]["message"]
    assert not await is_refused()
    await client.ask("PATCH", "/mcp/servers/docs", value={"trust_annotations": False})
    assert await is_refused()
    await client.ask("PATCH", "/mcp/servers/docs", value={"trust_annotations": True})
    lowered = {"find_documents": {"annotations": {"readOnlyHint": False}}}
    await client.ask("PATCH", "/mcp/servers/docs", value={"overrides": lowered})
    assert await is_refused()
    trusted = {"remove_document": {"annotations": {"readOnlyHint": True}, "trust": True}}
    await client.ask("PATCH", "/mcp/servers/docs", value={"overrides": trusted})
    assert not await is_refused("docs__remove_document")
    docs.told["remove_document"]["annotations"] = {"readOnlyHint": True}  # it became safer: not believed by itself
    await client.ask("PATCH", "/mcp/servers/docs", value={"overrides": {}})
    await client.ask("POST", "/mcp/servers/docs/refresh")
    assert await is_refused("docs__remove_document")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "'name' must be a string"),
        ({"name": 5}, "'name' must be a string"),
        ({"name": "call_tool"}, "call it by itself"),
        ({"name": "search_tools", "arguments": {"query": "x"}}, "call it by itself"),
        ({"name": "docs__find_documents", "arguments": []}, "'arguments' must be an object"),
        ({"name": "nope"}, "There is no tool 'nope'"),
    ],
)
async def test_what_can_not_be_called(client: Client, docs: MemoryServer, arguments: Any, said: str) -> None:
    for meta in ("call_tool", "call_read_tool"):
        answer = await use(client, meta, **arguments)
        assert answer["error"]["code"] == -32602
        assert said in answer["error"]["message"]


async def test_messages_questions_and_errors_pass(client: Client, docs: MemoryServer) -> None:
    docs.tools |= {"ask_back": asking(docs, "roots/list"), "gone": _said}
    await client.ask("POST", "/mcp/servers/docs/refresh")
    session = await initialize(client, AT_MCP)
    body = request("tools/call", 7, name="call_tool", arguments={"name": "docs__ask_back"})
    async with client.open("POST", AT_MCP, value=body, headers={**session, **STREAM}) as stream:
        question = await next_message(stream)
        assert question["method"] == "roots/list"
        assert (await tell(client, session, {"id": question["id"], "result": {"roots": []}}, AT_MCP))[0] == 202
        assert (await next_message(stream))["id"] == 7
    del docs.tools["gone"]  # the server's own error passes as it is
    answer = await use(client, "call_tool", AT_MCP, session, name="docs__gone")
    assert (answer["error"]["code"], answer["error"]["message"]) == (-32602, "Unknown tool: gone")
    body = request(
        "tools/call", 8, name="call_tool", arguments={"name": "docs__find_documents"}, _meta={"progressToken": "p"}
    )
    async with client.open("POST", AT_MCP, value=body, headers={**session, **STREAM}) as stream:
        assert (await next_message(stream))["params"]["data"] == "under way"
        assert (await next_message(stream))["id"] == 8


async def test_a_call_is_cancelled(client: Client, docs: MemoryServer) -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(request: Request, emit: Emit) -> Any:
        began.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    docs.tools["wait"] = wait
    await client.ask("POST", "/mcp/servers/docs/refresh")
    session = await handshake(client, AT_MCP)
    calling = asyncio.create_task(use(client, "call_tool", AT_MCP, session, name="docs__wait"))
    await began.wait()
    note = {"method": "notifications/cancelled", "params": {"requestId": 1}}
    await tell(client, session, note, AT_MCP)
    await asyncio.wait([calling], timeout=5)
    assert calling.done()
    await until(lambda: any(getattr(each, "method", "") == "notifications/cancelled" for each in docs.posted))


async def test_log_audit_and_limits_know_the_real_tool(client: Client, docs: MemoryServer) -> None:
    grants = {"allow": [{"servers": ["*"]}]}
    _, _, made = await client.ask(
        "POST", "/keys", value={"name": "a", "grants": grants, "limits": {"calls_per_day": 3}}
    )
    agent = Client(client.app, made["key"])
    session = await handshake(agent, AT_MCP)
    await use(agent, "call_tool", session=session, name="docs__find_documents", arguments={"words": "x"})
    await use(agent, "call_tool", session=session, name="nope")
    await inside(client.app).audit.flush()  # type: ignore[arg-type]
    rows = (await client.ask("GET", "/audit?kind=call"))[2]["rows"]
    assert [(row["server"], row["tool"], row["outcome"]) for row in rows] == [
        (None, "nope", "unknown"),
        ("docs", "find_documents", "ok"),
    ]
    await use(client, "docs__find_documents", "/mcp", words="x")
    await inside(client.app).audit.flush()  # type: ignore[arg-type]
    direct, _, through = (await client.ask("GET", "/audit?kind=call"))[2]["rows"]
    assert direct["arguments_digest"] == through["arguments_digest"]
    await use(agent, "search_tools", session=session, query="x")
    assert (await use(agent, "search_tools", session=session, query="x"))["error"]["code"] == -32059
    _, _, figures = await client.ask("GET", "/metrics")
    assert "call_tool" not in str(figures)


async def test_the_old_transport_has_modes(client: Client, docs: MemoryServer) -> None:
    async with client.open("GET", "/sse?tools=search", headers=STREAM) as stream:
        endpoint = await stream.event()
        assert endpoint is not None
        assert endpoint.data.endswith(b"&tools=search")
        await client.ask("POST", endpoint.data.decode(), value=request("tools/list"))
        assert [tool["name"] for tool in (await next_message(stream))["result"]["tools"]] == META
        body = request("tools/call", name="call_tool", arguments={"name": "docs__find_documents"})
        await client.ask("POST", endpoint.data.decode(), value=body)
        assert (await next_message(stream))["params"]["data"] == "under way"
        assert (await next_message(stream))["result"]["content"][0]["text"] == "find_documents None"


async def test_what_is_not_granted_is_neither_found_nor_called(client: Client, docs: MemoryServer) -> None:
    _, _, made = await client.ask("POST", "/keys", value={"name": "a", "grants": {"allow": [{"servers": ["chat"]}]}})
    agent = Client(client.app, made["key"])
    session = await handshake(agent, AT_MCP)
    names = {
        tool["name"]
        for tool in found(await use(agent, "search_tools", session=session, query="find library post"))["tools"]
    }
    assert names == {"chat__send_message"}
    assert [
        each["server"] for each in found(await use(agent, "search_tools", session=session, query=""))["servers"]
    ] == ["chat"]
    for meta in ("call_tool", "call_read_tool"):
        assert (
            "There is no tool"
            in (await use(agent, meta, session=session, name="docs__find_documents"))["error"]["message"]
        )
    told = found(await use(agent, "describe_tools", session=session, names=["docs__find_documents"]))
    assert told == {"tools": [], "unknown": ["docs__find_documents"]}
