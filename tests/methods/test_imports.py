"""Importing through the gateway: what would be done, what is done, what is refused; and the way back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.waiting import until

pytestmark = pytest.mark.anyio


def file(**servers: Any) -> str:
    return json.dumps({"mcpServers": servers})


async def imported(client: Client, text: str, status: int = 200, **fields: Any) -> Any:
    got, _, found = await client.ask("POST", "/mcp/import", value={"text": text, **fields})
    assert got == status, found
    return found if status != 200 else {each["name"]: each for each in found["servers"]} | {"": found}


async def names(client: Client) -> list[str]:
    found = (await client.ask("GET", "/mcp/servers", headers={"accept": "application/json"}))[2]
    return [each["name"] for each in found["servers"]]


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(client: Client, servers: Servers) -> None:
    servers["a"] = MemoryServer()
    text = file(a={"url": "http://a.test/mcp", "headers": {"X-Key": "secret-value"}}, none={})
    found = await imported(client, text, dry_run=True)
    assert (found["a"]["action"], found["none"]["action"]) == ("add", "skip")
    assert "secret-value" not in json.dumps(found)
    assert await names(client) == []
    await imported(client, text)
    assert await names(client) == ["a"]


async def test_the_same_again_changes_nothing_and_what_differs_wants_replace(client: Client, servers: Servers) -> None:
    servers["a"] = MemoryServer()
    await imported(client, file(a={"url": "http://a.test/mcp"}))
    await client.ask("PATCH", "/mcp/servers/a", value={"tags": ["kept"], "lock": "warn"})
    assert (await imported(client, file(a={"url": "http://a.test/mcp"})))["a"]["action"] == "same"
    other = file(a={"url": "http://a.test/mcp", "description": "new"})
    found = await imported(client, other)
    assert (found["a"]["action"], found["a"]["changes"], "replace" in found["a"]["problem"]) == (
        "change",
        ["description"],
        True,
    )
    assert (await client.ask("GET", "/mcp/servers/a"))[2]["description"] == ""
    assert "problem" not in (await imported(client, other, replace=True))["a"]
    stored = (await client.ask("GET", "/mcp/servers/a"))[2]
    assert (stored["description"], stored["tags"], stored["lock"]) == ("new", ["kept"], "warn")


async def test_what_is_refused_of_one_keeps_no_other(client: Client, servers: Servers) -> None:
    servers["a"] = MemoryServer()
    text = file(
        program={"command": "npx", "args": ["x"]},
        bad={"url": "ftp://x"},
        inside={"url": "http://a.inside.test/mcp"},
        env={"url": "http://a.test/mcp", "headers": {"A": "${env:HOME}"}},
        a={"url": "http://a.test/mcp"},
    )
    found = await imported(client, text)
    assert {name: each["action"] for name, each in found.items() if name} == {
        "program": "refused", "bad": "refused", "inside": "refused", "env": "refused", "a": "add"
    }  # fmt: skip
    assert "GATEWAY_ALLOW_STDIO" in found["program"]["problem"]
    assert "HOME" in found["env"]["problem"]
    assert found["bad"]["field"] == "url"
    assert await names(client) == ["a"]


async def test_values_fill_variables(client: Client, servers: Servers) -> None:
    servers["a"] = MemoryServer()
    text = file(a={"url": "http://${input:host}/mcp", "headers": {"A": "${env:TOKEN}"}})
    found = await imported(client, text)
    assert found["a"]["problem"] == "It needs values of input:host."
    assert found[""]["variables"] == ["input:host", "env:TOKEN"]
    found = await imported(client, text, values={"input:host": "a.test", "env:TOKEN": "t"})
    assert found["a"]["action"] == "add"
    assert (await client.ask("GET", "/mcp/servers/a"))[2]["url"] == "http://a.test/mcp"


async def test_only_some_are_taken(client: Client, servers: Servers) -> None:
    servers["a"] = MemoryServer()
    found = await imported(client, file(a={"url": "http://a.test/mcp"}, b={"url": "http://b.test/mcp"}), only=["a"])
    assert [name for name in found if name] == ["a"]
    assert await names(client) == ["a"]


async def test_an_export_is_taken_by_another_gateway(open_app: Open, servers: Servers) -> None:
    servers["a"] = MemoryServer()
    async with open_app() as (_, client):
        value = {"name": "a", "url": "http://a.test/mcp", "tags": ["x"], "lock": "enforce", "limits": {"concurrent": 3}}
        await client.ask("POST", "/mcp/servers", value=value)
        _, _, export = await client.ask("GET", "/mcp/export")
        assert (export["format"], "toolsets" in export) == ("mcp-gateway export", False)
        await client.ask("POST", "/mcp/toolsets", value={"slug": "t", "include": [{"servers": ["a"]}]})
        _, _, export = await client.ask("GET", "/mcp/export")
        assert export["toolsets"]["t"]["include"] == [{"servers": ["a"]}]
        assert "slug" not in export["toolsets"]["t"]
        assert (await imported(client, json.dumps(export)))["a"]["action"] == "same"
        await client.ask("DELETE", "/mcp/servers/a")
        assert (await imported(client, json.dumps(export)))["a"]["action"] == "add"
        _, _, again = await client.ask("GET", "/mcp/export")
        assert again["servers"] == export["servers"]
        await until(lambda: True)


URL = "http://a.test/mcp"
FILES: dict[str, Any] = {
    "Claude Code": {"mcpServers": {"a": {"type": "http", "url": URL}}},
    "Cursor": {"mcpServers": {"a": {"url": URL}}},
    "Windsurf": {"mcpServers": {"a": {"serverUrl": URL, "disabled": True}}},
    "VS Code": {"servers": {"a": {"type": "http", "url": URL}}, "inputs": []},
    "VS Code's settings": {"mcp": {"servers": {"a": {"type": "sse", "url": URL}}}},
    "Zed": {"context_servers": {"a": {"source": "custom", "url": URL}}},
    "LiteLLM": {"mcp_servers": {"a": {"url": URL, "auth_type": "none", "description": "One"}}},
    "ContextForge": {
        "entities": {"gateways": [{"name": "a", "url": URL, "transport": "STREAMABLEHTTP", "tags": ["x"]}]}
    },
    "server.json": {
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": "com.example/a", "description": "One", "version": "1.0.0",
        "remotes": [{"type": "streamable-http", "url": URL}],
    },
}  # fmt: skip


@pytest.mark.parametrize("of", FILES)
async def test_what_was_imported_is_exported_and_taken_again(client: Client, servers: Servers, of: str) -> None:
    """From each product's file to a registration, to our export, and back to the very same registration."""
    servers["a"] = MemoryServer()
    text = json.dumps(FILES[of])
    assert (await imported(client, text))["a"]["action"] == "add"
    assert (await imported(client, text))["a"]["action"] == "same"
    _, _, stored = await client.ask("GET", "/mcp/servers/a")
    export = json.dumps((await client.ask("GET", "/mcp/export"))[2])
    assert (await imported(client, export, whole=True, replace=True))["a"]["action"] == "same"
    await client.ask("DELETE", "/mcp/servers/a")
    assert (await imported(client, export))["a"]["action"] == "add"
    _, _, again = await client.ask("GET", "/mcp/servers/a")
    for name in (
        "state", "reason", "counts", "discovered_at", "created_at", "updated_at", "unreachable_since", "breaker",
        "protocol_version", "server_info",
    ):  # fmt: skip
        del stored[name], again[name]
    assert again == stored


async def test_the_registry_document_of_one_gateway_is_taken_by_another(client: Client, servers: Servers) -> None:
    """Its servers' own addresses at that gateway, each with a key that has to be given."""
    servers["a"] = MemoryServer()
    await client.ask("POST", "/mcp/servers", value={"name": "a", "url": URL, "title": "The A"})
    _, _, document = await client.ask("GET", "/v0.1/servers")
    found = await imported(client, json.dumps(document), dry_run=True)
    entry = next(each for each in found[""]["servers"] if each["given"] == "a")
    assert "It needs values of input:Authorization" in entry["problem"]
    values = {"input:Authorization": "Bearer x"}
    found = await imported(client, json.dumps(document), dry_run=True, values=values)
    entry = next(each for each in found[""]["servers"] if each["given"] == "a")
    assert entry["server"]["url"].endswith("/mcp/servers/a/mcp")
    assert (entry["server"]["title"], entry["server"]["headers"]) == ("The A", {"Authorization": "[redacted]"})


WRONG = [
    {},
    {"text": 1},
    {"text": "{"},
    {"text": "{}", "values": []},
    {"text": "{}", "values": {"a": 1}},
    {"text": "{}", "more": 1},
    {"text": "{}", "dry_run": 1},
    {"text": "{}", "only": "a"},
]


@pytest.mark.parametrize("value", WRONG)
async def test_bad_input_is_refused_with_the_field(client: Client, value: Any) -> None:
    status, _, problem = await client.ask("POST", "/mcp/import", value=value)
    assert status == 422
    assert problem["field"] in ("text", "values", "more", "dry_run", "only")


async def test_an_operator_imports_and_a_user_does_not(client: Client, servers: Servers) -> None:
    servers["a"] = MemoryServer()
    for role, status in (("operator", 200), ("user", 403)):
        _, _, key = await client.ask("POST", "/keys", value={"name": role, "role": role})
        one = Client(client.app, key["key"])
        assert (await one.ask("GET", "/mcp/export"))[0] == status
        assert (await one.ask("POST", "/mcp/import", value={"text": file(a={"url": "http://a.test/mcp"})}))[0] == status
    _, _, rows = await client.ask("GET", "/audit?kind=change&principal=operator")
    assert [row["method"] for row in rows["rows"]] == ["mcp.servers.import"]
