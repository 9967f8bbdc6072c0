"""What callers and operators may get wrong, or try, with toolsets, overrides, tool search and results that fit."""

import json
from typing import Any

import pytest

from gateway.errors import InvalidParams
from gateway.model.overrides import Misfit, apply
from gateway.model.selection import selected
from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.edge.test_http_sse import connected
from tests.fix_gateway import Open, Servers
from tests.talk import handshake, inside, request

pytestmark = pytest.mark.anyio
OWN = "/mcp/servers/docs/mcp"
JSON = {"accept": "application/json"}


async def _said(request: Any, _: Any) -> Any:
    return {"content": [{"type": "text", "text": f"{request.params['name']} {request.params.get('arguments')}"}]}


async def _register(client: Client, servers: Servers, name: str, *tools: str) -> MemoryServer:
    server = servers[name] = servers.get(name) or MemoryServer()
    server.tools = dict.fromkeys(tools, _said)
    _, _, stored = await client.ask("POST", "/mcp/servers", value={"name": name, "url": f"http://{name}.test/mcp"})
    assert stored["state"] == "ready"
    return server


# --- expressions ------------------------------------------------------------------------------------------------------

DOUBLED = "|".join(["[@,@]"] * 150)


COMPARED = f"[({DOUBLED[:419]}),({DOUBLED[:419]})]|[0]==[1]"


@pytest.mark.parametrize("expression", [DOUBLED, COMPARED])
def test_what_stands_in_a_value_twice_is_counted_twice(expression: str) -> None:
    assert len(expression) <= 1_000
    with pytest.raises(InvalidParams, match="too many steps"):
        selected(expression, [1.5])


def test_a_join_of_much_is_refused_before_it_is_made() -> None:
    with pytest.raises(InvalidParams, match="too many steps"):
        selected("length(join(s, l))", {"s": "x" * 100_000, "l": ["a"] * 100_000})
    assert selected("join(', ', l)", {"l": ["a", "b"]}) == "a, b"


def test_all_of_a_large_value_may_be_put_into_another() -> None:
    rows = [{"id": number, "name": f"row {number}", "tags": ["a", "b"]} for number in range(200_000)]
    assert selected("{rows: rows, total: total}", {"rows": rows, "total": 1, "other": 2})["rows"] is rows


@pytest.mark.parametrize(
    "expression",
    ["&foo", "to_number('99999999999999999999')", '`"\\ud800"`', "sum(big)", "`" + "[" * 300 + "]" * 300 + "`"],
)
async def test_what_is_no_json_is_a_tools_error(client: Client, servers: Servers, expression: str) -> None:
    async def big(_: Any, __: Any) -> Any:
        data = {"rows": ["x" * 50] * 50, "big": [18446744073709551615] * 2}
        return {"content": [{"type": "text", "text": json.dumps(data)}]}

    server = await _register(client, servers, "docs", "big")
    server.tools["big"] = big
    for results in ({"max_bytes": 1_000, "overflow": "spill"}, {"select": expression}):
        value = {"overrides": {"big": {"results": results}}}
        assert (await client.ask("PATCH", "/mcp/servers/docs", value=value))[0] == 200
        status, _, answer = await client.ask("POST", "/mcp/tools/call", value={"name": "docs__big"})
        if "select" in results:
            assert (status, answer["result"].get("isError")) == (200, True), answer
            return
        ref = answer["result"]["_meta"]["io.mcp-gateway/result"]["ref"]
        reading = {"name": "read_result", "arguments": {"ref": ref, "select": expression}}
        status, _, answer = await client.ask("POST", "/mcp/tools/call", value=reading)
        assert (status, answer["result"].get("isError")) == (200, True), answer


# --- the right tool ---------------------------------------------------------------------------------------------------


async def test_a_name_that_a_bare_tool_has_is_not_given_by_an_override(client: Client, servers: Servers) -> None:
    await _register(client, servers, "one", "find", "search")
    await _register(client, servers, "two", "other")
    value: Any = {"include": [{"servers": ["*"]}], "names": "bare"}
    assert (await client.ask("PUT", "/mcp/toolsets/t", value=value))[0] == 200
    for overrides in ({"two": {"other": {"name": "find"}}}, {"one": {"search": {"name": "find"}}}):
        status, _, problem = await client.ask("PATCH", "/mcp/toolsets/t", value={"overrides": overrides})
        assert (status, problem["title"]) == (422, "Names clash"), problem
    swapped = {"one": {"find": {"name": "search"}, "search": {"name": "find"}}}
    assert (await client.ask("PATCH", "/mcp/toolsets/t", value={"overrides": swapped}))[0] == 200
    _, _, listed = await client.ask("GET", "/mcp/toolsets/t/tools", headers=JSON)
    assert [tool["name"] for tool in listed["tools"]] == ["find", "other", "search"]


async def test_a_tool_whose_name_an_override_has_is_told_of(client: Client, servers: Servers) -> None:
    await _register(client, servers, "one", "find")
    await _register(client, servers, "two", "other")
    value: Any = {"include": [{"servers": ["*"]}], "overrides": {"two": {"other": {"name": "one__late"}}}}
    assert (await client.ask("PUT", "/mcp/toolsets/t", value=value))[2]["state"] == "ready"
    servers["one"].tools["late"] = _said
    await client.ask("POST", "/mcp/servers/one/refresh")
    _, _, toolset = await client.ask("GET", "/mcp/toolsets/t")
    assert toolset["state"] == "incomplete"
    assert toolset["problems"] == ["'late' of 'one' is not shown as 'one__late': 'other' of 'two' is named so."]


async def test_call_read_tool_judges_the_tool_that_it_calls(client: Client, servers: Servers) -> None:
    servers["a"] = MemoryServer(told={"delete.all": {"annotations": {"readOnlyHint": False}}})
    servers["b"] = MemoryServer(told={"a__delete_all": {"annotations": {"readOnlyHint": True}}})
    await _register(client, servers, "a", "delete.all")
    await _register(client, servers, "b", "a__delete_all")
    address = "/mcp?tools=search"
    session = await handshake(client, address)
    body = request("tools/call", name="call_read_tool", arguments={"name": "a__delete_all"})
    _, _, answer = await client.ask("POST", address, value=body, headers=session)
    assert answer["result"]["isError"] is True
    assert "may do more than read" in answer["result"]["content"][0]["text"]
    assert not any(each.method == "tools/call" for each in servers["a"].requests)
    body = request("tools/call", name="describe_tools", arguments={"names": ["a__delete_all"]})
    _, _, answer = await client.ask("POST", address, value=body, headers=session)
    assert [tool["name"] for tool in answer["result"]["structuredContent"]["tools"]] == ["a__delete.all"]


# --- odd arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[1], "abc", 5, True])
async def test_arguments_that_are_no_object_at_a_servers_own_address(
    client: Client, servers: Servers, arguments: Any
) -> None:
    servers["docs"] = MemoryServer()
    servers["docs"].schemas["search"] = {"type": "object", "properties": {"tenant": {"type": "string"}}}
    await _register(client, servers, "docs", "search")
    value = {"overrides": {"search": {"arguments": {"tenant": {"value": "acme", "hide": True}}}}}
    assert (await client.ask("PATCH", "/mcp/servers/docs", value=value))[0] == 200
    session = await handshake(client, OWN)
    for params in ({"name": "search", "arguments": arguments}, {"name": None}):
        _, _, answer = await client.ask("POST", OWN, value=request("tools/call", **params), headers=session)
        assert answer["error"]["code"] == -32602, answer


@pytest.mark.parametrize("server", [[], {}, 5])
async def test_a_server_that_is_no_name(client: Client, servers: Servers, server: Any) -> None:
    await _register(client, servers, "docs", "search")
    session = await handshake(client, "/mcp?tools=search")
    body = request("tools/call", name="search_tools", arguments={"query": "x", "server": server})
    _, _, answer = await client.ask("POST", "/mcp?tools=search", value=body, headers=session)
    assert answer["result"]["isError"] is True, answer


async def test_a_mode_that_is_none_is_refused_before_the_message_is_taken(open_app: Open, servers: Servers) -> None:
    async with open_app() as (_, one), open_app() as (_, two), connected(one, two) as old:
        old.endpoint += "&tools=bogus"
        status, problem = await old.post(two, request("tools/list"))
        assert (status, problem["error"]["code"]) == (400, -32602), problem


# --- lists ------------------------------------------------------------------------------------------------------------


async def test_a_list_of_an_older_catalogue_is_not_kept_for_the_newer_one(
    open_app: Open, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_app() as (app, client):
        await _register(client, servers, "docs", "search", "delete")
        value: Any = {"name": "k", "role": "user", "grants": {"allow": [{"servers": ["docs"], "tools": ["*"]}]}}
        _, _, key = await client.ask("POST", "/keys", value=value)
        user = Client(app, key["key"])
        session = await handshake(user, OWN)
        indexes = inside(app).tool_indexes
        of = indexes.of

        async def slow(view: Any, server: Any) -> Any:
            monkeypatch.setattr(indexes, "of", of)
            value = {"overrides": {"delete": {"enabled": False}}}
            assert (await client.ask("PATCH", "/mcp/servers/docs", value=value))[0] == 200
            return await of(view, server)

        monkeypatch.setattr(indexes, "of", slow)
        for address in (f"{OWN}?tools=auto", OWN):
            _, _, answer = await user.ask("POST", address, value=request("tools/list"), headers=session)
        assert [tool["name"] for tool in answer["result"]["tools"]] == ["search"]


# --- hidden arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"allOf": [{"$ref": "#/$defs/Base"}], "$defs": {"Base": {"required": ["tenant"]}}},
        {"allOf": [{"$ref": "#/definitions/Base"}], "definitions": {"Base": {"properties": {"tenant": {}}}}},
        {"$defs": {"Other": {"$ref": "#/properties/ten%61nt"}}},
    ],
)
def test_a_schema_that_speaks_of_an_argument_by_a_reference(more: Any) -> None:
    schema = {"type": "object", "properties": {"tenant": {"type": "string"}, "q": {"type": "string"}}} | more
    with pytest.raises(Misfit):
        apply({"name": "t", "inputSchema": schema}, {"arguments": {"tenant": {"value": "acme", "hide": True}}})
    assert apply({"name": "t", "inputSchema": schema}, {"arguments": {"q": {"name": "query"}}})
