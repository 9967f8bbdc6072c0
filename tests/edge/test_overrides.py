from typing import Any

import pytest

from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import ask, handshake, inside

pytestmark = pytest.mark.anyio
JSON = {"accept": "application/json"}
OWN = "/mcp/servers/docs/mcp"
SCHEMA = {
    "type": "object",
    "properties": {"q": {"type": "string"}, "limit": {"type": "integer"}, "tenant": {"type": "string"}},
    "required": ["q", "tenant"],
}
FIND = {
    "name": "find",
    "title": "Find",
    "description": "Finds documents.",
    "arguments": {
        "q": {"name": "query", "description": "words"},
        "limit": {"default": 10},
        "tenant": {"value": "acme", "hide": True},
    },
}


async def _said(request: Any, _: Any) -> Any:
    return {"content": [{"type": "text", "text": f"{request.params['name']} {request.params.get('arguments')}"}]}


@pytest.fixture
async def docs(client: Client, servers: Servers) -> MemoryServer:
    """A server with three tools."""
    servers["docs"] = MemoryServer(tools=dict.fromkeys(["search", "delete", "read"], _said), instructions="Use search.")
    servers["docs"].schemas["search"] = SCHEMA
    servers["docs"].told["search"] = {"description": "Searches.", "annotations": {"readOnlyHint": True}}
    servers["docs"].told["read"] = {"annotations": {"readOnlyHint": True}}
    status, _, stored = await client.ask("POST", "/mcp/servers", value={"name": "docs", "url": "http://docs.test/mcp"})
    assert (status, stored["state"]) == (200, "ready")
    return servers["docs"]


async def patch(client: Client, status: int = 200, **fields: Any) -> Any:
    answered, _, document = await client.ask("PATCH", "/mcp/servers/docs", value=fields)
    assert answered == status, document
    return document


async def tools(client: Client, address: str = "/mcp/tools") -> dict[str, Any]:
    _, _, document = await client.ask("GET", address, headers=JSON)
    return {tool["name"]: tool for tool in document["tools"]}


async def called(client: Client, name: str, address: str = "/mcp/tools/call", **arguments: Any) -> Any:
    _, _, answer = await client.ask("POST", address, value={"name": name, "arguments": arguments})
    return answer["result"]["content"][0]["text"] if "result" in answer else answer


async def test_a_tool_is_seen_and_called_as_its_override_says(client: Client, docs: MemoryServer) -> None:
    stored = await patch(client, overrides={"search": FIND, "delete": {"enabled": False}})
    assert (stored["problems"], stored["counts"]["tools"]) == ([], 2)
    shown = await tools(client)
    assert shown.keys() == {"docs__find", "docs__read"}
    assert shown["docs__find"]["title"] == "Find"
    assert shown["docs__find"]["inputSchema"]["properties"] == {
        "query": {"type": "string", "description": "words"},
        "limit": {"type": "integer", "default": 10},
    }
    assert await called(client, "docs__find", query="x") == "search {'limit': 10, 'q': 'x', 'tenant': 'acme'}"
    assert await called(client, "find", query="x") == "search {'limit': 10, 'q': 'x', 'tenant': 'acme'}"
    for gone in ("docs__search", "search", "docs__delete", "delete"):
        assert (await called(client, gone))["title"] == "Unknown tool", gone
    refused = await called(client, "docs__find", query="x", tenant="other")
    assert (refused["status"], refused["field"]) == (422, "arguments.tenant")
    _, _, answer = await client.ask("POST", "/mcp/tools/call", value={"name": "find", "arguments": {"query": "x"}})
    assert (answer["server"], answer["tool"]) == ("docs", "docs__find")


@pytest.mark.parametrize("version", ["2024-11-05", "2025-11-25"])
async def test_at_the_servers_own_address_too(client: Client, docs: MemoryServer, version: str) -> None:
    await patch(client, overrides={"search": FIND, "delete": {"enabled": False}})
    session = await handshake(client, OWN, version)
    listed = (await ask(client, OWN, session, "tools/list"))["tools"]
    assert {tool["name"] for tool in listed} == {"find", "read"}
    answer = await ask(client, OWN, session, "tools/call", name="find", arguments={"query": "x"})
    assert answer["content"][0]["text"] == "search {'limit': 10, 'q': 'x', 'tenant': 'acme'}"
    assert (await ask(client, OWN, session, "tools/call", name="read"))["content"][0]["text"] == "read None"
    for gone in ("search", "delete", "nope"):
        refused = await ask(client, OWN, session, "tools/call", name=gone)
        assert refused["code"] == -32602, gone
    assert refused["message"].startswith("There is no tool 'nope'")


async def test_what_is_not_overridden_is_passed_on_as_it_came(client: Client, docs: MemoryServer) -> None:
    await patch(client, overrides={"search": {"title": "Find"}})
    await called(client, "docs__search", q="x", tenant="t")
    assert docs.requests[-1].params["arguments"] == {"q": "x", "tenant": "t"}


async def test_names_change_and_change_back(client: Client, docs: MemoryServer) -> None:
    for name in ("find", "look", None):
        await patch(client, overrides={} if name is None else {"search": {"name": name}})
        assert f"docs__{name or 'search'}" in await tools(client)
        assert len(await tools(client)) == 3
    await client.ask("POST", "/mcp/servers/docs/refresh")
    assert "docs__search" in await tools(client)


async def test_arguments_are_checked_by_what_callers_see(client: Client, docs: MemoryServer) -> None:
    await patch(client, overrides={"search": FIND}, validate_arguments=True)
    assert "query: 5 is not of type" in await called(client, "docs__find", query=5)
    assert '"query" is a required property' in await called(client, "docs__find")
    assert await called(client, "docs__find", query="x") == "search {'limit': 10, 'q': 'x', 'tenant': 'acme'}"


async def test_an_override_that_does_not_fit_any_more_takes_the_tool_away(client: Client, docs: MemoryServer) -> None:
    """The fixed argument may be there to keep callers out of something."""
    await patch(client, overrides={"search": FIND, "gone": {"title": "x"}})
    docs.schemas["search"] = {"type": "object", "properties": {"q": {"type": "string"}, "limit": {"type": "integer"}}}
    await client.ask("POST", "/mcp/servers/docs/refresh")
    shown = (await client.ask("GET", "/mcp/servers/docs"))[2]
    assert shown["problems"] == [
        "The override of 'search' does not fit: the tool has no argument 'tenant' at the top of its schema.",
        "Server 'docs' has no tool 'gone', which has an override.",
    ]
    assert (await tools(client)).keys() == {"docs__delete", "docs__read"}
    assert (await called(client, "docs__find"))["title"] == "Unknown tool"
    docs.schemas["search"] = SCHEMA
    await client.ask("POST", "/mcp/servers/docs/refresh")
    assert "docs__find" in await tools(client)


async def test_a_new_tool_does_not_take_an_overrides_name(client: Client, docs: MemoryServer) -> None:
    await patch(client, overrides={"search": {"name": "find"}})
    docs.tools["find"] = _said
    await client.ask("POST", "/mcp/servers/docs/refresh")
    session = await handshake(client, OWN)
    listed = [tool["name"] for tool in (await ask(client, OWN, session, "tools/list"))["tools"]]
    assert sorted(listed) == ["delete", "find", "read"]
    assert await called(client, "docs__find") == "search {}"
    [problem] = (await client.ask("GET", "/mcp/servers/docs"))[2]["problems"]
    assert problem == "'search' would be named 'find', as another tool of 'docs' is."


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"search": {"name": "read"}}, "overrides.search.name"),
        ({"search": {"arguments": {"nope": {"description": "x"}}}}, "overrides.search.arguments.nope"),
        ({"search": {"arguments": {"tenant": {"hide": True}}}}, "overrides.search.arguments.tenant.hide"),
        ({"delete": {"annotations": {"readOnlyHint": True}}}, "overrides.delete.annotations.readOnlyHint"),
        ({"search": {"arguments": {"limit": {"default": "ten"}}}}, "overrides.search.arguments.limit.default"),
        ({"search": {"arguments": {"q": {"value": 5}}}}, "overrides.search.arguments.q.value"),
        ({"search": {"name": "x"}, "read": {"name": "x"}}, "overrides.read.name"),
    ],
)
async def test_what_does_not_fit_is_refused(client: Client, docs: MemoryServer, overrides: Any, field: str) -> None:
    problem = await patch(client, 422, overrides=overrides)
    assert problem["field"] == field
    if overrides == {"search": {"name": "read"}}:  # which is no name of another one in a toolset with prefixes
        overrides, field = {"search": {"name": "docs__read"}}, "overrides.search.name"
    spec = {"include": [{"servers": ["docs"]}], "overrides": {"docs": overrides}}
    status, _, problem = await client.ask("PUT", "/mcp/toolsets/t", value=spec)
    assert status == 422
    assert problem["field"] in (field.replace("overrides.", "overrides.docs."), "overrides.docs.read.name")


async def test_trust_is_an_administrators(client: Client, docs: MemoryServer) -> None:
    _, _, made = await client.ask("POST", "/keys", value={"name": "op", "role": "operator"})
    operator = Client(client.app, made["key"])
    trusted = {"delete": {"annotations": {"readOnlyHint": True}, "trust": True}}
    await patch(operator, 403, overrides=trusted)
    await patch(client, overrides=trusted)
    assert (await tools(client))["docs__delete"]["annotations"] == {"readOnlyHint": True}
    await patch(operator, overrides=trusted, title="other")  # it stays as it is
    await patch(operator, 403, overrides=trusted, url="http://docs.test/other")
    stored = await patch(operator, url="http://docs.test/mcp?v=2")
    assert stored["overrides"] == {"delete": {"annotations": {"readOnlyHint": True}}}
    assert "claims more safety" in stored["problems"][0]
    await patch(client, overrides=trusted)
    _, _, made = await client.ask(
        "POST",
        "/keys",
        value={"name": "reader", "grants": {"allow": [{"servers": ["docs"], "annotations": {"readOnlyHint": True}}]}},
    )
    assert (await tools(Client(client.app, made["key"]))).keys() == {"docs__search", "docs__delete", "docs__read"}
    await patch(client, overrides={"read": {"annotations": {"readOnlyHint": False}}})
    shown = await tools(Client(client.app, made["key"]))  # grants are about what the server says
    assert shown.keys() == {"docs__search", "docs__read"}


async def test_a_toolsets_trust_ends_with_the_address_it_was_given_for(client: Client, docs: MemoryServer) -> None:
    trusted = {"delete": {"annotations": {"readOnlyHint": True}, "trust": True}}
    spec = {"include": [{"servers": ["docs"]}], "overrides": {"docs": trusted, "other": trusted}}

    async def trust_given() -> None:
        assert (await client.ask("PUT", "/mcp/toolsets/t", value=spec))[0] == 200
        assert (await shown())["overrides"] == spec["overrides"]

    async def shown() -> Any:
        return (await client.ask("GET", "/mcp/toolsets/t"))[2]

    without: Any = {"docs": {"delete": {"annotations": {"readOnlyHint": True}}}, "other": trusted}
    await trust_given()
    await patch(client, title="other")
    assert (await shown())["overrides"] == spec["overrides"]
    await patch(client, url="http://docs.test/mcp?v=2")
    toolset = await shown()
    assert toolset["overrides"] == without
    assert "claims more safety" in str(toolset["problems"])
    _, _, changes = await client.ask("GET", "/audit?kind=change&limit=2", headers=JSON)
    [server, changed] = sorted(changes["rows"], key=lambda row: str(row["target"]))
    assert (server["target"], changed["target"]) == ("server:docs", "toolset:t")
    assert (changed["before"]["overrides"], changed["after"]["overrides"]) == (spec["overrides"], without)
    beside: Any = {
        **without["docs"],
        "search": {"description": "Searches much."},
    }  # what stands there is in nobody's way
    status, _, _ = await client.ask("PATCH", "/mcp/toolsets/t", value={"overrides": {"docs": beside}})
    assert status == 200
    changed = {"docs": {"delete": {"annotations": {"readOnlyHint": True}, "title": "x"}}}
    status, _, problem = await client.ask("PATCH", "/mcp/toolsets/t", value={"overrides": changed})
    assert (status, problem["field"]) == (422, "overrides.docs.delete.annotations.readOnlyHint")
    assert (await tools(client, "/mcp/toolsets/t/tools"))["docs__delete"].get("annotations") != {"readOnlyHint": True}
    await trust_given()
    await client.ask("DELETE", "/mcp/servers/docs")
    await client.ask("POST", "/mcp/servers", value={"name": "docs", "url": "http://docs.test/else"})
    assert (await shown())["overrides"] == without


async def test_what_is_renamed_while_its_server_is_down_is_listed(client: Client, docs: MemoryServer) -> None:
    docs.down = "down"
    stored = await patch(client, overrides={"search": {"name": "find"}})
    assert stored["state"] == "unreachable"
    assert (await tools(client)).keys() == {"docs__find", "docs__delete", "docs__read"}
    await patch(client, overrides={"search": {"name": "look"}})
    assert (await tools(client)).keys() == {"docs__look", "docs__delete", "docs__read"}
    await patch(client, prefix="d")
    assert (await tools(client)).keys() == {"d__look", "d__delete", "d__read"}
    docs.down = None
    assert (await patch(client, overrides={}))["state"] == "ready"
    assert (await tools(client)).keys() == {"d__search", "d__delete", "d__read"}


async def test_a_secret_is_sent_and_never_shown(
    open_app: Open, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_VALUE_TENANT", "t0p-secret")
    servers["docs"] = MemoryServer(tools={"search": _said})
    servers["docs"].schemas["search"] = SCHEMA
    hidden = {"search": {"arguments": {"tenant": {"value": "${env:GATEWAY_VALUE_TENANT}", "hide": True}}}}
    async with open_app() as (app, client):
        spec = {"name": "docs", "url": "http://docs.test/mcp"}
        _, _, made = await client.ask("POST", "/keys", value={"name": "op", "role": "operator"})
        operator = Client(app, made["key"])
        assert (await operator.ask("POST", "/mcp/servers", value={**spec, "overrides": hidden}))[0] == 403
        assert (await client.ask("POST", "/mcp/servers", value={**spec, "overrides": hidden}))[0] == 200
        assert await called(client, "docs__search", q="${env:GATEWAY_VALUE_TENANT}") == (
            "search {'q': '${env:GATEWAY_VALUE_TENANT}', 'tenant': 't0p-secret'}"
        )
        for path in ("/mcp/servers/docs", "/mcp/tools", "/mcp/export", "/audit?kind=change"):
            assert "t0p-secret" not in str((await client.ask("GET", path, headers=JSON))[2]), path
        assert (await operator.ask("PATCH", "/mcp/servers/docs", value={"overrides": hidden}))[0] == 200
        assert (
            await operator.ask("PATCH", "/mcp/servers/docs", value={"url": "http://mine.test/mcp", "overrides": hidden})
        )[0] == 403
        servers["mine"] = MemoryServer(tools={"search": _said})
        servers["mine"].schemas["search"] = SCHEMA
        _, _, stored = await operator.ask("PATCH", "/mcp/servers/docs", value={"url": "http://mine.test/mcp"})
        assert stored["overrides"] == {"search": {"arguments": {"tenant": {"hide": True}}}}
        assert "needs a 'value'" in stored["problems"][0]
        bad = {"search": {"arguments": {"tenant": {"value": "${env:HOME}", "hide": True}}}}
        status, _, problem = await client.ask("PATCH", "/mcp/servers/docs", value={"overrides": bad})
        assert (status, problem["field"]) == (422, "overrides.search.arguments.tenant.value")
        in_toolset = {"include": [{"servers": ["docs"]}], "overrides": {"docs": hidden}}
        assert (await client.ask("PUT", "/mcp/toolsets/t", value=in_toolset))[0] == 422


async def test_the_tool_lock_sees_what_the_server_says(client: Client, docs: MemoryServer) -> None:
    await patch(client, overrides={"search": FIND}, lock="enforce")
    before = (await client.ask("GET", "/mcp/servers/docs/digests"))[2]
    assert before["overrides"] == {"search": FIND}
    docs.told["search"] = {"description": "Searches otherwise."}
    await client.ask("POST", "/mcp/servers/docs/refresh")
    [change] = (await client.ask("GET", "/mcp/servers/docs/changes"))[2]["changes"]
    assert (change["tool"], change["parts"], change["override"]) == ("search", ["description", "annotations"], FIND)
    assert (await tools(client))["docs__find"]["description"] == "Finds documents."
    assert (await called(client, "docs__find", query="x"))["status"] == 409
    session = await handshake(client, OWN)
    assert (await ask(client, OWN, session, "tools/call", name="find", arguments={"query": "x"}))["code"] == -32060
    after = (await client.ask("GET", "/mcp/servers/docs/digests"))[2]
    assert before["tools"]["search"] != after["tools"]["search"]


# --- in toolsets ------------------------------------------------------------------------------------------------------


async def put(client: Client, status: int = 200, **fields: Any) -> Any:
    fields = {"include": [{"servers": ["docs"]}], **fields}
    answered, _, document = await client.ask("PUT", "/mcp/toolsets/research", value=fields)
    assert answered == status, document
    return document


@pytest.mark.parametrize("names", ["prefixed", "bare"])
async def test_a_toolsets_override_comes_on_top(client: Client, docs: MemoryServer, names: str) -> None:
    await patch(client, overrides={"search": {"title": "Find", "arguments": FIND["arguments"]}})
    above = {
        "search": {"name": "find_it", "arguments": {"limit": {"default": 3}, "q": {"description": "more"}}},
        "delete": {"enabled": False},
    }
    stored = await put(client, names=names, overrides={"docs": above})
    assert (stored["state"], stored["counts"]["tools"]) == ("ready", 2)
    shown = await tools(client, "/mcp/toolsets/research/tools")
    assert shown.keys() == {"find_it", "docs__read" if names == "prefixed" else "read"}
    assert shown["find_it"]["title"] == "Find"
    assert shown["find_it"]["inputSchema"]["properties"]["query"]["description"] == "more"
    address = "/mcp/toolsets/research/tools/call"
    assert await called(client, "find_it", address, query="x") == "search {'limit': 3, 'q': 'x', 'tenant': 'acme'}"
    for gone in ("docs__search", "search", "docs__delete", "delete"):
        assert (await called(client, gone, address))["title"] == "Unknown tool", gone
    assert await called(client, "docs__search", query="x") == "search {'limit': 10, 'q': 'x', 'tenant': 'acme'}"
    assert "docs__delete" in await tools(client)


async def test_names_in_a_toolset_lead_to_one_tool(client: Client, docs: MemoryServer) -> None:
    problem = await put(client, 422, overrides={"docs": {"search": {"name": "docs__read"}}})
    assert problem["field"] == "overrides.docs.search.name"
    problem = await put(client, 422, names="bare", overrides={"docs": {"search": {"name": "read"}}})
    assert "'read'" in problem["detail"]
    await put(client, overrides={"docs": {"search": {"name": "docs__read"}, "read": {"name": "docs__search"}}})
    address = "/mcp/toolsets/research/tools/call"
    assert await called(client, "docs__read", address) == "search {}"
    assert await called(client, "docs__search", address) == "read {}"


async def test_an_override_without_its_tool_is_shown(client: Client, docs: MemoryServer) -> None:
    stored = await put(client, overrides={"docs": {"later": {"title": "x"}}, "nowhere": {"t": {"title": "x"}}})
    assert stored["state"] == "incomplete"
    assert stored["problems"] == [
        "Server 'docs' has no tool 'later', which has an override.",
        "There is no server 'nowhere', whose tools have overrides.",
    ]


async def test_a_denied_tool_stays_denied_under_another_name(client: Client, docs: MemoryServer) -> None:
    await put(client, overrides={"docs": {"delete": {"name": "harmless"}}})
    grants = {"allow": [{"toolsets": ["research"]}], "deny": [{"tools": ["delete"]}]}
    _, _, made = await client.ask("POST", "/keys", value={"name": "agent", "grants": grants})
    agent = Client(client.app, made["key"])
    assert (await tools(agent, "/mcp/toolsets/research/tools")).keys() == {"docs__search", "docs__read"}
    assert (await called(agent, "harmless", "/mcp/toolsets/research/tools/call"))["status"] == 404


async def test_figures_log_and_audit_know_the_servers_own_name(client: Client, docs: MemoryServer) -> None:
    await put(client, overrides={"docs": {"search": {"name": "find_it"}}})
    await called(client, "find_it", "/mcp/toolsets/research/tools/call")
    await inside(client.app).audit.flush()  # type: ignore[arg-type]
    [row] = (await client.ask("GET", "/audit?kind=call"))[2]["rows"]
    assert (row["server"], row["tool"], row["address"]) == ("docs", "search", "/mcp/toolsets/research/tools/call")
