import asyncio
import json
from typing import Any

import pytest

from gateway.protocol.messages import Notification, Request
from gateway.upstream.memory import Emit, MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import BOTH, STREAM, ask, ends, handshake, initialize, request

pytestmark = pytest.mark.anyio
ADDRESSES = ["/mcp", "/mcp/servers/demo/mcp"]


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"])
@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_session_of_each_handshake_revision_lists_and_calls(
    client: Client, registered: MemoryServer, address: str, version: str
) -> None:
    session = await handshake(client, address, version)
    tools = (await ask(client, address, session, "tools/list"))["tools"]
    name = "demo__echo" if address == "/mcp" else "echo"
    assert [tool["name"] for tool in tools] == [name]
    result = await ask(client, address, session, "tools/call", name=name, arguments={"a": 1})
    assert result["content"][0]["text"] == "{'a': 1}"
    assert await ask(client, address, session, "ping") == {}


async def test_a_session_lives_on_every_worker(client: Client, registered: MemoryServer, open_app: Open) -> None:
    session = await handshake(client)
    async with open_app() as (_, other):
        assert (await ask(other, "/mcp", session, "tools/list"))["tools"]
        assert (await client.ask("DELETE", "/mcp", headers=session))[0] == 204
        for worker in (client, other):
            await ends(worker, session)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"mcp-session-id": ""}, 404, -32001),
        ({"mcp-session-id": "tampered"}, 404, -32001),
        ({"mcp-protocol-version": "2026-07-28"}, 400, -32022),
        ({"mcp-protocol-version": "1999-01-01"}, 400, -32022),
        ({"content-type": "text/plain"}, 415, -32600),
        ({"accept": "text/html"}, 406, -32600),
        ({"authorization": "Bearer wrong"}, 401, -32040),
        ({"origin": "https://evil.example"}, 403, -32041),
        ({"host": "evil.example"}, 403, -32041),
    ],
)
async def test_what_may_not_come_in_is_a_json_rpc_error_with_its_status(
    client: Client, registered: MemoryServer, change: dict[str, str], status: int, code: int
) -> None:
    session = await handshake(client)
    got, headers, answer = await client.ask("POST", "/mcp", value=request("ping"), headers=session | change)
    assert (got, headers["content-type"], answer["error"]["code"]) == (status, "application/json", code)
    assert answer["jsonrpc"] == "2.0"
    if status == 401:
        assert headers["www-authenticate"].startswith("Bearer")


async def test_a_request_of_2026_is_told_what_we_speak(client: Client) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    body = request("server/discover", "d", _meta=meta)
    headers = BOTH | {"mcp-protocol-version": "2026-07-28", "mcp-method": "server/discover"}
    status, _, answer = await client.ask("POST", "/mcp", value=body, headers=headers)
    assert (status, answer["id"], answer["error"]["code"]) == (400, "d", -32022)
    assert answer["error"]["data"]["supported"][0] == "2025-11-25"


async def test_without_a_session_it_says_what_to_do(client: Client) -> None:
    status, _, answer = await client.ask("POST", "/mcp", value=request("ping"), headers=BOTH)
    assert (status, answer["error"]["code"]) == (400, -32600)
    assert "initialize" in answer["error"]["message"]


async def test_a_session_belongs_to_its_address(client: Client, registered: MemoryServer) -> None:
    session = await handshake(client, "/mcp")
    status, _, _ = await client.ask("POST", ADDRESSES[1], value=request("ping"), headers=session)
    assert status == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, -32700),
        (b"3", 400, -32600),
        (b'{"jsonrpc":"2.0","id":1}', 400, -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', 400, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"nope"}', 200, -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}', 200, -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":3}}', 200, -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"nope"}}', 200, -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"x://"}}', 200, -32002),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"!"}}', 200, -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"mcp.servers.list"}', 200, -32601),
    ],
)
async def test_bad_input_has_its_code(
    client: Client, registered: MemoryServer, body: bytes, status: int, code: int
) -> None:
    session = (await handshake(client)) | {"content-type": "application/json"}
    got, _, answer = await client.ask("POST", "/mcp", body=body, headers=session)
    assert (got, answer["error"]["code"]) == (status, code)
    assert answer["id"] in (1, None)


async def test_batches_exist_where_the_revision_has_them(client: Client, registered: MemoryServer) -> None:
    session = await handshake(client, version="2025-03-26")
    batch = [request("ping", 1), {"jsonrpc": "2.0", "method": "notifications/x"}, request("tools/list", 2), 7]
    status, _, answers = await client.ask("POST", "/mcp", value=batch, headers=session)
    assert (status, [answer["id"] for answer in answers]) == (200, [1, 2, None])
    only_notifications = [{"jsonrpc": "2.0", "method": "notifications/x"}]
    assert (await client.ask("POST", "/mcp", value=only_notifications, headers=session))[0] == 202
    status, _, _ = await client.ask("POST", "/mcp", value=[request("ping", n) for n in range(51)], headers=session)
    assert status == 400


async def test_lists_are_paginated_and_never_cut(open_app: Open, servers: Servers) -> None:
    async def nothing(request: Request, emit: Emit) -> Any:
        return {}

    servers["many"] = MemoryServer(tools={f"t{number:03}": nothing for number in range(25)}, page_size=10)
    async with open_app(page_size=7) as (_, client):
        await client.ask("POST", "/mcp/servers", value={"name": "many", "url": "http://many.test/mcp"})
        session = await handshake(client)
        names: list[str] = []
        cursor: Any = ""
        pages = 0
        while cursor is not None:
            page = await ask(client, "/mcp", session, "tools/list", cursor=cursor)
            names += [tool["name"] for tool in page["tools"]]
            cursor, pages = page.get("nextCursor"), pages + 1
        assert (names, pages) == ([f"many__t{number:03}" for number in range(25)], 4)


async def test_at_a_servers_own_address_pages_are_the_servers(client: Client, registered: MemoryServer) -> None:
    registered.tools |= {f"t{number}": registered.tools["echo"] for number in range(4)}
    registered.page_size = 3
    session = await handshake(client, ADDRESSES[1])
    first = await ask(client, ADDRESSES[1], session, "tools/list")
    assert (len(first["tools"]), first["nextCursor"]) == (3, "3")
    assert len((await ask(client, ADDRESSES[1], session, "tools/list", cursor="3"))["tools"]) == 2


async def test_at_a_servers_own_address_it_speaks_for_itself(client: Client, registered: MemoryServer) -> None:
    body = request(
        "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "t", "version": "1"}
    )
    _, _, answer = await client.ask("POST", ADDRESSES[1], value=body, headers=BOTH)
    assert answer["result"]["serverInfo"] == {"name": "demo", "version": "1.0.0"}
    assert answer["result"]["capabilities"] == registered.capabilities


async def test_a_server_that_is_down_still_shows_its_last_known_lists_with_the_reason(
    client: Client, registered: MemoryServer
) -> None:
    sessions = {address: await handshake(client, address) for address in ADDRESSES}
    registered.down = "the plug was pulled"
    assert (await client.ask("POST", "/mcp/servers/demo/refresh"))[2]["state"] == "unreachable"
    for address, session in sessions.items():
        result = await ask(client, address, session, "tools/list")
        assert len(result["tools"]) == 1
        [note] = result["_meta"]["io.mcp-gateway/unreachable"]
        assert note["server"] == "demo"
        assert "plug" in note["reason"]
        assert note["discovered_at"]


async def test_an_upstreams_session_that_expired_is_made_anew(client: Client, registered: MemoryServer) -> None:
    session = await handshake(client)
    await ask(client, "/mcp", session, "tools/call", name="echo")
    registered.forget_sessions()
    assert "content" in await ask(client, "/mcp", session, "tools/call", name="echo")


async def test_an_upstreams_own_error_passes_as_it_is(client: Client, registered: MemoryServer) -> None:
    session = await handshake(client, ADDRESSES[1])
    registered.tools.clear()
    error = await ask(client, ADDRESSES[1], session, "tools/call", name="echo")
    assert error == {"code": -32602, "message": "Unknown tool: echo"}


async def steps(request: Request, emit: Emit) -> Any:
    token = request.params["_meta"]["progressToken"]
    await emit(Notification("notifications/progress", {"progressToken": token, "progress": 1}))
    return {"content": []}


@pytest.mark.parametrize("address", ADDRESSES)
async def test_progress_comes_under_the_callers_token(client: Client, registered: MemoryServer, address: str) -> None:
    registered.tools["steps"] = steps
    await client.ask("POST", "/mcp/servers/demo/refresh")
    session = await handshake(client, address)
    name = "demo__steps" if address == "/mcp" else "steps"
    body = request("tools/call", "i", name=name, _meta={"progressToken": "mine"})
    async with client.open("POST", address, value=body, headers=session) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        messages = [json.loads(event.data) for event in await answer.events()]
    assert messages[0]["params"] == {"progressToken": "mine", "progress": 1}
    assert messages[1] == {"jsonrpc": "2.0", "id": "i", "result": {"content": []}}


async def test_a_hang_up_does_not_cancel_a_call_of_a_session(client: Client, registered: MemoryServer) -> None:
    began, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(request: Request, emit: Emit) -> Any:
        await emit(Notification("notifications/message", {"level": "info", "data": "begun"}))
        began.set()
        await go_on.wait()
        done.set()
        return {"content": []}

    registered.tools["slow"] = slow
    await client.ask("POST", "/mcp/servers/demo/refresh")
    session = await handshake(client)

    async def call_and_leave() -> None:
        async with client.open("POST", "/mcp", value=request("tools/call", name="slow"), headers=session) as answer:
            await answer.event()

    calling = asyncio.create_task(call_and_leave())
    async with asyncio.timeout(10):
        await began.wait()
        await asyncio.sleep(0.1)  # the watcher of calls that a hang-up cancels would be listening by now
        go_on.set()
        await done.wait()
        await calling
    assert registered.posted == [] or all("cancelled" not in str(message) for message in registered.posted)


async def test_the_get_stream_tells_that_lists_changed(client: Client, registered: MemoryServer) -> None:
    session = await handshake(client)
    async with client.open("GET", "/mcp", headers=session | {"accept": "text/event-stream"}) as answer:
        assert answer.status == 200
        registered.tools["second"] = steps
        await client.ask("POST", "/mcp/servers/demo/refresh")
        event = await answer.event()
    assert event is not None
    assert json.loads(event.data) == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {}}


async def test_completion_finds_the_prompt_behind_a_public_name(client: Client, servers: Servers) -> None:
    servers["a"] = MemoryServer(prompts=[{"name": "p"}], templates=[{"uriTemplate": "x://{id}", "name": "t"}])
    await client.ask("POST", "/mcp/servers", value={"name": "a", "url": "http://a.test/mcp"})
    session = await handshake(client)
    for ref, local in (
        ({"type": "ref/prompt", "name": "a__p"}, {"type": "ref/prompt", "name": "p"}),
        ({"type": "ref/resource", "uri": "x://{id}"}, {"type": "ref/resource", "uri": "x://{id}"}),
    ):
        result = await ask(client, "/mcp", session, "completion/complete", ref=ref, argument={"name": "k", "value": ""})
        assert result["params"]["ref"] == local


async def test_an_unknown_server_has_no_endpoint(client: Client) -> None:
    status, _, answer = await client.ask("POST", "/mcp/servers/nobody/mcp", value=request("ping"), headers=BOTH)
    assert (status, answer["error"]["data"]) == (404, {"server": "nobody"})


async def test_links_in_results_lead_back_to_the_server_that_gave_them(client: Client, servers: Servers) -> None:
    def content(*uris: str) -> list[dict[str, Any]]:
        links = [{"type": "resource_link", "uri": uri, "name": "n", "x": 1} for uri in uris]
        return [*links, {"type": "resource", "resource": {"uri": uris[0], "text": "t"}}, {"type": "text", "text": "t"}]

    async def link(_: Request, emit: Emit) -> Any:
        return {"content": content("file:///same", "file:///only", "file:///unlisted", "t://1/x"), "_meta": {"y": 2}}

    for name in ("first", "second"):
        servers[name] = MemoryServer(
            tools={"link": link},
            resources=[{"uri": "file:///same", "name": "s"}],
            templates=[{"uriTemplate": f"{'t' if name == 'second' else 'u'}://{{id}}/x", "name": "t"}],
        )
    servers["second"].resources.append({"uri": "file:///only", "name": "o"})
    for name in servers:
        await client.ask("POST", "/mcp/servers", value={"name": name, "url": f"http://{name}.test/mcp"})
    session = await handshake(client)
    result = await ask(client, "/mcp", session, "tools/call", name="second__link")
    assert result["_meta"] == {"y": 2}
    *links, copy, text = result["content"]
    assert text == {"type": "text", "text": "t"}
    assert [each["uri"] for each in links] == [
        "mcp-gateway://second/file:///same",
        "file:///only",
        "mcp-gateway://second/file:///unlisted",
        "t://1/x",
    ]
    assert copy["resource"] == {"uri": "mcp-gateway://second/file:///same", "text": "t"}
    for each in links:
        await ask(client, "/mcp", session, "resources/read", uri=each["uri"])
        assert servers["second"].requests[-1].method == "resources/read"
    own = await handshake(client, "/mcp/servers/second/mcp")
    result = await ask(client, "/mcp/servers/second/mcp", own, "tools/call", name="link")
    assert result["content"][0]["uri"] == "file:///same"


@pytest.mark.parametrize("headers", [{}, {"mcp-session-id": "nonsense"}])
async def test_a_refusal_has_the_id_of_what_it_refuses(client: Client, headers: dict[str, str]) -> None:
    _, _, answer = await client.ask("POST", "/mcp", value=request("tools/list", "mine"), headers=BOTH | headers)
    assert answer["id"] == "mine"


async def test_an_unknown_server_at_its_own_address_is_refused_with_the_requests_id(client: Client) -> None:
    body = request("initialize", "mine", protocolVersion="2025-11-25", capabilities={}, clientInfo={})
    status, _, answer = await client.ask("POST", "/mcp/servers/nobody/mcp", value=body, headers=BOTH)
    assert (status, answer["id"], answer["error"]["code"]) == (404, "mine", -32602)


async def test_a_version_that_is_not_the_sessions_is_400(client: Client) -> None:
    session = await initialize(client, "/mcp", "2025-06-18")
    assert (await client.ask("POST", "/mcp", value=request("ping"), headers=session))[0] == 200
    other = session | {"mcp-protocol-version": "2025-11-25"}
    status, _, answer = await client.ask("POST", "/mcp", value=request("ping", 7), headers=other)
    assert (status, answer["error"]["code"], answer["id"]) == (400, -32020, 7)
    assert "2025-06-18" in answer["error"]["message"]
    assert (await client.ask("GET", "/mcp", headers=other | STREAM))[0] == 400
    del other["mcp-protocol-version"]
    assert (await client.ask("POST", "/mcp", value=request("ping"), headers=other))[0] == 200
