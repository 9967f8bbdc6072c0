import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.protocol.messages import Notification
from gateway.upstream.memory import MemoryServer
from tests.asgi import Answer, Client
from tests.fix_gateway import Open, Servers
from tests.talk import STREAM, ask, handshake, inside, next_message, request
from tests.waiting import until

pytestmark = pytest.mark.anyio
JSON = {"accept": "application/json"}
RESEARCH: dict[str, Any] = {"include": [{"servers": ["docs"], "tools": ["search*"]}, {"tags": ["public"]}]}
ADDRESS = "/mcp/toolsets/research"


async def _said(request: Any, _: Any) -> Any:
    return {"content": [{"type": "text", "text": f"{request.params['name']} {request.params.get('arguments')}"}]}


@pytest.fixture
async def docs(client: Client, servers: Servers) -> MemoryServer:
    """Three servers: `docs`, `web` with the tag `public`, `other`."""
    servers["docs"] = MemoryServer(
        tools=dict.fromkeys(["search", "search_all", "delete"], _said),
        prompts=[{"name": "cite"}],
        resources=[{"uri": "docs://one", "name": "one"}],
    )
    servers["web"] = MemoryServer(
        tools=dict.fromkeys(["fetch", "debug"], _said),
        prompts=[{"name": "sum"}],
        resources=[{"uri": "web://one", "name": "one"}],
        templates=[{"uriTemplate": "web://item/{id}", "name": "item"}],
    )
    servers["other"] = MemoryServer(tools=dict.fromkeys(["search", "fetch"], _said))
    for name in ("docs", "web", "other"):
        await register(client, name)
    return servers["docs"]


async def register(client: Client, name: str, **fields: Any) -> None:
    spec = {"name": name, "url": f"http://{name}.test/mcp", "tags": ["public"] if name == "web" else []}
    status, _, stored = await client.ask("POST", "/mcp/servers", value=spec | fields)
    assert (status, stored["state"]) == (200, "ready")


async def put(client: Client, slug: str = "research", status: int = 200, **fields: Any) -> Any:
    answered, _, document = await client.ask("PUT", f"/mcp/toolsets/{slug}", value=fields)
    assert answered == status, document
    return document


async def names(client: Client, kind: str = "tools", address: str = ADDRESS) -> list[str]:
    _, _, document = await client.ask("GET", f"{address}/{kind}", headers=JSON)
    return [item["uri" if kind == "resources" else "name"] for item in document[kind]]


async def key(client: Client, **grants: Any) -> Client:
    status, _, made = await client.ask("POST", "/keys", value={"name": "agent", "grants": grants})
    assert status == 201, made
    return Client(client.app, made["key"])


# --- what one holds ---------------------------------------------------------------------------------------------------


async def test_a_toolset_holds_what_its_rules_give(client: Client, docs: MemoryServer) -> None:
    stored = await put(client, title="Research", **RESEARCH, exclude=[{"tools": ["debug"]}])
    assert (stored["state"], stored["problems"]) == ("ready", [])
    assert stored["servers"] == ["docs", "web"]
    assert stored["counts"] == {"tools": 3, "prompts": 1, "resources": 1, "templates": 1}
    assert await names(client) == ["docs__search", "docs__search_all", "web__fetch"]
    assert await names(client, "prompts") == ["web__sum"]
    assert await names(client, "resources") == ["web://one"]
    assert (await client.ask("GET", ADDRESS))[2] == stored


async def test_what_it_does_not_hold_is_not_there(client: Client, docs: MemoryServer) -> None:
    await put(client, **RESEARCH)
    for name in ("docs__delete", "other__search", "delete"):
        status, _, problem = await client.ask("POST", f"{ADDRESS}/tools/call", value={"name": name})
        assert (status, problem["title"]) == (404, "Unknown tool")
        assert f"GET {ADDRESS}/tools lists" in problem["detail"]
    for uri in ("docs://one", "mcp-gateway://docs/docs://one"):
        assert (await client.ask("POST", f"{ADDRESS}/resources/read", value={"uri": uri}))[0] == 404
    assert (await client.ask("POST", f"{ADDRESS}/prompts/get", value={"name": "docs__cite"}))[0] == 404
    _, _, called = await client.ask("POST", f"{ADDRESS}/tools/call", value={"name": "search", "arguments": {"q": 1}})
    assert called["server"] == "docs"
    assert called["tool"] == "docs__search"
    assert called["result"]["content"][0]["text"] == "search {'q': 1}"


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_mcp_is_spoken_there(client: Client, docs: MemoryServer, version: str) -> None:
    await put(client, title="Research", instructions="Prefer search before fetch.", **RESEARCH)
    body = request("initialize", protocolVersion=version, capabilities={}, clientInfo={"name": "t", "version": "1"})
    _, _, answer = await client.ask("POST", f"{ADDRESS}/mcp", value=body, headers={"accept": "*/*"})
    assert answer["result"]["instructions"] == "Prefer search before fetch."
    assert answer["result"]["serverInfo"]["title"] == "Research"
    session = await handshake(client, f"{ADDRESS}/mcp", version)
    listed = await ask(client, f"{ADDRESS}/mcp", session, "tools/list")
    assert [tool["name"] for tool in listed["tools"]] == [
        "docs__search",
        "docs__search_all",
        "web__debug",
        "web__fetch",
    ]
    called = await ask(client, f"{ADDRESS}/mcp", session, "tools/call", name="docs__search")
    assert called["content"][0]["text"] == "search None"
    assert (await ask(client, f"{ADDRESS}/mcp", session, "tools/call", name="docs__delete"))["code"] == -32602
    assert (await ask(client, f"{ADDRESS}/mcp", session, "resources/read", uri="docs://one"))["code"] == -32002


async def test_a_session_belongs_to_its_address(client: Client, docs: MemoryServer) -> None:
    await put(client, **RESEARCH)
    await put(client, "second", **RESEARCH)
    session = await handshake(client, f"{ADDRESS}/mcp")
    for address in ("/mcp", "/mcp/toolsets/second/mcp", "/mcp/servers/docs/mcp"):
        status, _, _ = await client.ask("POST", address, value=request("ping"), headers=session)
        assert status == 404, address


async def test_without_instructions_a_model_is_told_which_servers_there_are(client: Client, docs: MemoryServer) -> None:
    await put(client, **RESEARCH)
    told = await rpc(client, "initialize", protocolVersion="2025-11-25")
    assert told["result"]["instructions"] == "Tools of several MCP servers. Servers: docs; web."


async def rpc(client: Client, method: str, address: str = f"{ADDRESS}/rpc", **params: Any) -> Any:
    return (await client.ask("POST", address, value=request(method, **params)))[2]


async def test_json_rpc_has_mcps_methods_and_no_others(client: Client, docs: MemoryServer) -> None:
    await put(client, **RESEARCH)
    assert (await rpc(client, "tools/list", q="fetch"))["result"]["total"] == 1
    assert (await rpc(client, "tools/call", name="web__fetch"))["result"]["content"]
    assert (await rpc(client, "mcp.servers.list"))["error"]["code"] == -32601
    _, _, answered = await client.ask(
        "POST", f"{ADDRESS}/tools/call", value=[request("tools/call", name="docs__delete"), request("tools/list", 2)]
    )
    assert [each["error"]["code"] for each in answered] == [-32602, -32601]


async def test_the_old_transport_is_there_too(client: Client, docs: MemoryServer) -> None:
    await put(client, **RESEARCH)
    async with client.open("GET", f"{ADDRESS}/sse", headers=STREAM) as stream:
        endpoint = await stream.event()
        assert endpoint is not None
        assert endpoint.data.decode().startswith(f"{ADDRESS}/messages?session_id=")
        for name, found in (("docs__search", True), ("docs__delete", False)):
            body = request("tools/call", name, name=name)
            assert (await client.ask("POST", endpoint.data.decode(), value=body))[0] == 202
            assert ("result" in await next_message(stream)) is found
        elsewhere = endpoint.data.decode().removeprefix(ADDRESS)
        assert (await client.ask("POST", elsewhere, value=request("ping")))[0] == 404


# --- as it changes ----------------------------------------------------------------------------------------------------


async def test_servers_join_by_themselves_and_leave(client: Client, docs: MemoryServer, servers: Servers) -> None:
    await put(client, **RESEARCH)
    servers["late"] = MemoryServer()
    await register(client, "late", tags=["public"])
    assert "late__echo" in await names(client)
    await client.ask("PATCH", "/mcp/servers/late", value={"tags": []})
    assert "late__echo" not in await names(client)
    await client.ask("DELETE", "/mcp/servers/docs")
    shown = (await client.ask("GET", ADDRESS))[2]
    assert (shown["state"], shown["servers"]) == ("incomplete", ["web"])
    assert shown["problems"][0] == "Nothing is there for servers: docs."
    assert await names(client) == ["web__debug", "web__fetch"]


async def test_a_change_reaches_the_lists_of_another_worker(open_app: Open, servers: Servers) -> None:
    servers["docs"] = MemoryServer(tools=dict.fromkeys(["search", "delete"], _said))
    async with open_app() as (_, one), open_app() as (_, two):
        await register(one, "docs")
        await put(one, include=[{"servers": ["docs"], "tools": ["search"]}])
        async with (
            two.open("GET", f"{ADDRESS}/tools", headers=STREAM) as tools,
            two.open("GET", "/mcp/toolsets", headers=STREAM) as toolsets,
        ):
            assert await _names_in(tools, "tools") == ["docs__search"]
            assert await _names_in(toolsets, "toolsets", "slug") == ["research"]
            async with asyncio.timeout(5):
                await put(one, include=[{"servers": ["docs"]}])
                assert await _names_in(tools, "tools") == ["docs__delete", "docs__search"]
                assert await _names_in(toolsets, "toolsets", "slug") == ["research"]
                await put(one, "second", include=[{"servers": ["docs"]}])
                assert await _names_in(toolsets, "toolsets", "slug") == ["research", "second"]
                await one.ask("DELETE", ADDRESS)
                assert await _names_in(toolsets, "toolsets", "slug") == ["second"]
                assert await tools.event() is None  # it is gone, and its lists end


async def _names_in(answer: Answer, kind: str, field: str = "name") -> list[str]:
    event = await answer.event()
    assert event is not None
    assert event.name == kind
    return [item[field] for item in json.loads(event.data)[kind]]


async def test_streams_hear_of_what_their_toolset_holds(client: Client, docs: MemoryServer, servers: Servers) -> None:
    await put(client, include=[{"servers": ["docs"], "tools": ["search*"], "resources": ["docs://*"]}])
    session = await handshake(client, f"{ADDRESS}/mcp")
    await ask(client, f"{ADDRESS}/mcp", session, "tools/call", name="docs__search")
    async with client.open("GET", f"{ADDRESS}/mcp", headers=session) as stream:
        await stream.prime()
        await until(lambda: bool(docs.streams))
        docs.say(Notification("notifications/resources/updated", {"uri": "hidden://one"}))
        docs.say(Notification("notifications/resources/updated", {"uri": "docs://one"}))
        assert (await next_message(stream))["params"]["uri"] == "docs://one"
        docs.tools["unseen"] = _said
        await client.ask("POST", "/mcp/servers/docs/refresh")
        docs.tools["search_more"] = _said
        await client.ask("POST", "/mcp/servers/docs/refresh")
        assert (await next_message(stream))["method"] == "notifications/tools/list_changed"
        await put(client, include=[{"servers": ["docs"], "resources": ["docs://*"]}])
        assert (await next_message(stream))["method"] == "notifications/tools/list_changed"


async def test_a_disabled_toolset_takes_no_calls(client: Client, docs: MemoryServer) -> None:
    await put(client, **RESEARCH)
    session = await handshake(client, f"{ADDRESS}/mcp")
    status, _, stored = await client.ask("PATCH", ADDRESS, value={"enabled": False})
    assert (status, stored["state"], stored["counts"]["tools"]) == (200, "disabled", 4)
    assert (await client.ask("GET", f"{ADDRESS}/tools", headers=JSON))[0] == 409
    _, _, refused = await client.ask("POST", f"{ADDRESS}/mcp", value=request("ping"), headers=session)
    assert "disabled" in refused["error"]["message"]
    await client.ask("PATCH", ADDRESS, value={"enabled": True})
    assert await ask(client, f"{ADDRESS}/mcp", session, "ping") == {}


# --- names ------------------------------------------------------------------------------------------------------------


async def test_bare_names_have_no_prefix(client: Client, docs: MemoryServer) -> None:
    await put(client, names="bare", **RESEARCH)
    assert await names(client) == ["debug", "fetch", "search", "search_all"]
    assert await names(client, "prompts") == ["sum"]
    for name in ("search", "fetch"):
        _, _, called = await client.ask("POST", f"{ADDRESS}/tools/call", value={"name": name})
        assert called["tool"] == name
        assert called["result"]["content"][0]["text"] == f"{name} None"
    assert (await client.ask("POST", f"{ADDRESS}/tools/call", value={"name": "docs__search"}))[0] == 404
    status, _, problem = await client.ask("POST", f"{ADDRESS}/tools/call", value={"name": "serch"})
    assert (status, problem["did_you_mean"]) == (404, ["search"])
    await client.ask("PATCH", ADDRESS, value={"names": "prefixed"})
    assert "docs__search" in await names(client)


async def test_bare_names_that_clash_are_refused(client: Client, docs: MemoryServer) -> None:
    both = [{"servers": ["docs", "other"], "tools": ["*"]}]
    problem = await put(client, status=422, names="bare", include=both)
    assert "that of 'docs' and that of 'other'" in problem["detail"]
    assert problem["clashes"] == ["docs/search and other/search"]
    assert (await client.ask("GET", ADDRESS))[0] == 404
    await put(client, names="bare", include=both, exclude=[{"servers": ["other"], "tools": ["search"]}])
    status, _, problem = await client.ask("PATCH", ADDRESS, value={"exclude": []})
    assert (status, problem["title"]) == (422, "Names clash")


async def test_who_comes_later_keeps_its_prefix(client: Client, docs: MemoryServer, servers: Servers) -> None:
    await put(client, names="bare", **RESEARCH)
    servers["late"] = MemoryServer(tools=dict.fromkeys(["search", "find"], _said))
    await register(client, "late", tags=["public"])
    await _until_named(client, ["debug", "fetch", "find", "late__search", "search", "search_all"])
    shown = (await client.ask("GET", ADDRESS))[2]
    assert shown["state"] == "incomplete"
    assert shown["problems"] == ["'search' of 'late' keeps its prefix: among the tools another one has the bare name."]
    _, _, called = await client.ask("POST", f"{ADDRESS}/tools/call", value={"name": "search"})
    assert called["server"] == "docs"
    assert (await put(client, names="bare", title="again", **RESEARCH))["title"] == "again"  # it is no new clash
    await client.ask("DELETE", "/mcp/servers/docs")  # a name stays who has it
    assert await names(client) == ["debug", "fetch", "find", "late__search"]


async def _until_named(client: Client, wanted: list[str]) -> None:
    async with asyncio.timeout(5):
        while await names(client) != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_bare_name_never_comes_to_lead_elsewhere(client: Client, docs: MemoryServer, servers: Servers) -> None:
    """A server without prefix lists what is another one's bare name."""
    await put(client, names="bare", include=[{"servers": ["*"]}], exclude=[{"servers": ["other"]}])
    servers["plain"] = MemoryServer(tools=dict.fromkeys(["search"], _said))
    await register(client, "plain", prefix="")
    await until(lambda: "plain" in str(inside(client.app).sync.catalogue.toolsets["research"].decided))  # type: ignore[arg-type]
    assert (await names(client)).count("search") == 1
    _, _, called = await client.ask("POST", f"{ADDRESS}/tools/call", value={"name": "search"})
    assert called["server"] == "docs"


async def test_strict_names_are_shown_where_they_are_asked_for(open_app: Open, servers: Servers) -> None:
    servers["docs"] = MemoryServer(tools=dict.fromkeys(["a.b", "c"], _said))
    for how, shown in (("strict", ["c", "docs__a_b"]), ("any", ["a.b", "c"])):
        async with open_app(name_chars=how) as (_, client):
            await client.ask("PUT", "/mcp/servers/docs", value={"url": "http://docs.test/mcp"})
            await put(client, names="bare", include=[{"servers": ["docs"]}])
            assert await names(client) == shown
            for name in ("a.b", *shown):
                _, _, called = await client.ask("POST", f"{ADDRESS}/tools/call", value={"name": name})
                assert called["tool"] in shown, name


async def test_two_workers_decide_the_same(open_app: Open, servers: Servers) -> None:
    async with open_app() as (_, one), open_app() as (_, two):
        await put(one, names="bare", include=[{"servers": ["*"]}])
        for number in range(6):
            servers[f"s{number}"] = MemoryServer(tools=dict.fromkeys([f"t{each}" for each in range(number, 6)], _said))
        await asyncio.gather(*(register((one, two)[number % 2], f"s{number}") for number in range(6)))
        async with asyncio.timeout(10):
            while len(await names(one)) < 21 or await names(one) != await names(two):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        before = await names(one)
        assert {name for name in before if "__" not in name} == {f"t{number}" for number in range(6)}
        await one.ask("POST", "/mcp/servers/s0/refresh")
        assert await names(two) == before


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["Research", "a b", "-a", "a/b", "ä", "a" * 64, "a.b"])
async def test_a_slug_that_is_none(client: Client, slug: str) -> None:
    status, _, problem = await client.ask("POST", "/mcp/toolsets", value={"slug": slug})
    assert (status, problem["field"]) == (422, "slug")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"include": {}}, "include"),
        ({"include": [{}]}, "include[0]"),
        ({"include": [{"toolsets": ["x"]}]}, "include[0]"),
        ({"exclude": [{"tools": []}]}, "exclude[0].tools"),
        ({"include": [{"servers": ["x"], "colour": 1}]}, "include[0]"),
        ({"names": "short"}, "names"),
        ({"enabled": 1}, "enabled"),
        ({"title": 1}, "title"),
        ({"instructions": "x" * 16_001}, "instructions"),
        ({"colour": "red"}, "colour"),
        ({"slug": "other"}, "slug"),
        ({"include": [{"tools": ["x" * 250] * 250}] * 5}, "include"),
    ],
)
async def test_fields_that_are_wrong(client: Client, fields: Mapping[str, Any], field: str) -> None:
    status, _, problem = await client.ask("PUT", ADDRESS, value=fields)
    assert (status, problem["field"]) == (422, field)
    assert (await client.ask("GET", ADDRESS))[0] == 404


async def test_rules_that_match_nothing_are_taken_and_shown(client: Client) -> None:
    stored = await put(client, include=[{"servers": ["later"], "tools": ["x"]}])
    assert (stored["state"], stored["counts"]["tools"]) == ("incomplete", 0)
    assert stored["problems"] == ["Nothing is there for servers: later.", "Nothing is there for tools: x."]
    assert (await put(client, "empty"))["problems"] == ["It includes nothing: give it rules in 'include'."]


async def test_a_slug_that_is_taken(client: Client) -> None:
    for _ in range(2):  # the very same again changes nothing
        assert (await client.ask("POST", "/mcp/toolsets", value={"slug": "research", **RESEARCH}))[0] == 200
    status, _, problem = await client.ask("POST", "/mcp/toolsets", value={"slug": "research", "title": "other"})
    assert (status, problem["title"]) == (409, "Toolset already there")
    assert (await put(client, title="other"))["include"] == []


async def test_what_is_shown_may_be_sent_back(client: Client, docs: MemoryServer) -> None:
    stored = await put(client, names="bare", title="T", description="D", instructions="I", **RESEARCH)
    again = await put(client, **stored)
    assert again == stored


async def test_a_toolset_that_is_not_there(client: Client) -> None:
    await put(client, **RESEARCH)
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/tools"), ("GET", "/sse")):
        status, _, problem = await client.ask(method, f"/mcp/toolsets/reserch{path}", value={}, headers=JSON)
        assert (status, problem["title"]) == (404, "Unknown toolset"), (method, path)
    assert (await client.ask("GET", "/mcp/toolsets/reserch"))[2]["did_you_mean"] == ["research"]
    _, _, answer = await client.ask("POST", "/mcp/toolsets/reserch/rpc", value=request("ping"))
    assert "Did you mean 'research'?" in answer["error"]["message"]


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_a_key_with_a_toolset_has_its_members_there_and_nothing_elsewhere(
    client: Client, docs: MemoryServer
) -> None:
    await put(client, **RESEARCH)
    await put(client, "secret", include=[{"servers": ["other"]}])
    agent = await key(client, allow=[{"toolsets": ["research"]}])
    assert len(await names(agent)) == 4
    assert (await agent.ask("POST", f"{ADDRESS}/tools/call", value={"name": "docs__search"}))[0] == 200
    for path in ("/mcp/tools", "/mcp/servers", "/mcp/resources"):
        assert (await agent.ask("GET", path, headers=JSON))[2]["total"] == 0
    assert (await agent.ask("POST", "/mcp/tools/call", value={"name": "docs__search"}))[0] == 404
    for path in ("", "/tools", "/mcp"):
        assert (await agent.ask("GET", f"/mcp/toolsets/secret{path}", headers=STREAM))[0] == 404
    [shown] = (await agent.ask("GET", "/mcp/toolsets", headers=JSON))[2]["toolsets"]
    assert (shown["slug"], shown["counts"]["tools"], "include" in shown) == ("research", 4, False)
    for method, value in (("PUT", {}), ("PATCH", {}), ("DELETE", None)):
        assert (await agent.ask(method, ADDRESS, value=value))[0] == 403
    id = (await agent.ask("GET", "/whoami"))[2]["id"]
    access = (await client.ask("GET", f"/keys/{id}/access"))[2]
    assert (access["toolsets"], access["tools"], access["unmatched"]) == (["research"], [], [])


async def test_denials_hold_in_toolsets(client: Client, docs: MemoryServer) -> None:
    await put(client, **RESEARCH)
    agent = await key(
        client,
        allow=[{"toolsets": ["research"]}],
        deny=[{"servers": ["docs"], "tools": ["search_*"]}, {"resources": ["web://*"]}],
    )
    assert await names(agent) == ["docs__search", "web__debug", "web__fetch"]
    assert await names(agent, "resources") == []
    assert (await agent.ask("POST", f"{ADDRESS}/resources/read", value={"uri": "web://one"}))[0] == 404


async def test_a_denied_toolset_is_not_there_and_its_members_are_elsewhere(client: Client, docs: MemoryServer) -> None:
    await put(client, **RESEARCH)
    agent = await key(client, allow=[{"toolsets": ["*"]}, {"servers": ["docs"]}], deny=[{"toolsets": ["res*"]}])
    assert (await agent.ask("GET", ADDRESS))[0] == 404
    assert (await agent.ask("GET", "/mcp/toolsets", headers=JSON))[2]["total"] == 0
    assert (await agent.ask("POST", "/mcp/tools/call", value={"name": "docs__search"}))[0] == 200


async def test_a_key_without_toolsets_does_not_see_them(client: Client, docs: MemoryServer) -> None:
    await put(client, **RESEARCH)
    agent = await key(client, allow=[{"servers": ["*"]}])
    assert (await agent.ask("GET", ADDRESS))[0] == 404
    assert (await agent.ask("GET", "/mcp/toolsets", headers=JSON))[2]["total"] == 0


async def test_grants_that_change_reach_open_streams(client: Client, docs: MemoryServer) -> None:
    await put(client, **RESEARCH)
    agent = await key(client, allow=[{"toolsets": ["research"]}])
    id = (await agent.ask("GET", "/whoami"))[2]["id"]
    session = await handshake(agent, f"{ADDRESS}/mcp")
    async with (
        agent.open("GET", f"{ADDRESS}/mcp", headers=session) as stream,
        agent.open("GET", f"{ADDRESS}/tools", headers=STREAM) as tools,
    ):
        await stream.prime()
        assert len(await _names_in(tools, "tools")) == 4
        await client.ask("PATCH", f"/keys/{id}", value={"grants": {"allow": [{"toolsets": ["other*"]}]}})
        told = {(await next_message(stream))["method"] for _ in range(3)}
        assert told == {f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")}
        assert await tools.event() is None
    _, _, refused = await agent.ask("POST", f"{ADDRESS}/mcp", value=request("ping"), headers=session)
    assert "There is no toolset 'research'" in refused["error"]["message"]


# --- lists of them ----------------------------------------------------------------------------------------------------


async def test_the_list_is_paged_and_filtered(client: Client, docs: MemoryServer) -> None:
    for slug, server in (("a", "docs"), ("b", "web"), ("c", "other")):
        await put(client, slug, description=f"about {server}", include=[{"servers": [server]}])

    async def slugs(query: str) -> list[str]:
        _, _, document = await client.ask("GET", f"/mcp/toolsets?{query}", headers=JSON)
        return [toolset["slug"] for toolset in document["toolsets"]]

    assert await slugs("") == ["a", "b", "c"]
    assert await slugs("server=web") == ["b"]
    assert await slugs("tag=public") == ["b"]
    assert await slugs("q=other") == ["c"]
    page = (await rpc(client, "mcp.toolsets.list", "/rpc", limit=2))["result"]
    assert [each["slug"] for each in page["toolsets"]] == ["a", "b"]
    page = (await rpc(client, "mcp/toolsets/list", "/rpc", cursor=page["next_cursor"]))["result"]
    assert [each["slug"] for each in page["toolsets"]] == ["c"]


async def test_json_rpc_manages_them(client: Client, docs: MemoryServer) -> None:
    made = await rpc(client, "mcp.toolsets.create", "/rpc", slug="research", **RESEARCH)
    assert made["result"]["counts"]["tools"] == 4
    changed = await rpc(client, "mcp.toolsets.update", "/mcp/toolsets", slug="research", title="R")
    assert changed["result"]["title"] == "R"
    assert (await rpc(client, "mcp.toolsets.get", "/rpc", slug="research"))["result"]["title"] == "R"
    assert (await rpc(client, "mcp.toolsets.update", "/rpc", slug="nowhere"))["error"]["code"] == -32602
    assert (await rpc(client, "mcp.toolsets.remove", "/rpc", slug="research"))["result"]["removed"] is True
    assert (await rpc(client, "mcp.toolsets.get", "/rpc", slug="research"))["error"]["data"] == {"toolset": "research"}


async def test_changes_are_audited(client: Client, docs: MemoryServer) -> None:
    await put(client, **RESEARCH)
    await client.ask("PATCH", ADDRESS, value={"title": "R"})
    await client.ask("DELETE", ADDRESS)
    await client.ask("POST", "/mcp/tools/call", value={"name": "docs__search"})
    rows = (await client.ask("GET", "/audit?kind=change"))[2]["rows"]
    found = [row for row in rows if row["target"] == "toolset:research"]
    assert [row["method"] for row in found] == ["mcp.toolsets.remove", "mcp.toolsets.update", "mcp.toolsets.replace"]
    assert found[1]["before"]["title"] is None
    assert found[1]["after"]["title"] == "R"
