"""The OpenAPI document names what lists hold: every field of an item that is really sent."""

from typing import Any

import pytest

from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.talk import inside

pytestmark = pytest.mark.anyio


def of_list(document: Any, path: str, kind: str, method: str = "get", status: str = "200") -> Any:
    """The schema of one item of an answer's list."""
    answer = document["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]
    return answer["properties"][kind]["items"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/mcp/servers", "servers"),
        ("/mcp/toolsets", "toolsets"),
        ("/mcp/tools", "tools"),
        ("/mcp/resources", "resources"),
        ("/mcp/resources", "resourceTemplates"),
        ("/mcp/prompts", "prompts"),
        ("/keys", "keys"),
        ("/audit?kind=call", "rows"),
        ("/audit?kind=change", "rows"),
        ("/v0.1/servers", "servers"),
        ("/v1/mcp/registry.json", "servers"),
    ],
)
async def test_the_fields_of_what_lists_hold_are_documented(
    client: Client, registered: MemoryServer, path: str, kind: str
) -> None:
    _, _, document = await client.ask("GET", "/openapi.json")
    of_all: dict[str, Any] = {"title": "T", "description": "d", "icons": [], "_meta": {}}
    registered.prompts = [{"name": "p", **of_all, "arguments": [{"name": "a", "required": True}]}]
    registered.resources = [{"uri": "demo://x", "name": "x", **of_all, "mimeType": "text/plain", "size": 3}]
    registered.templates = [{"uriTemplate": "demo://{y}", "name": "y", **of_all, "mimeType": "text/plain"}]
    registered.told["echo"] = of_all | {"annotations": {}, "outputSchema": {"type": "object"}}
    assert (await client.ask("POST", "/mcp/servers/demo/refresh"))[0] == 200
    assert (await client.ask("PUT", "/mcp/toolsets/t", value={"include": [{"servers": ["demo"]}]}))[0] == 200
    made = {"name": "k", "limits": {"calls_per_second": 10}, "expires_in": 60}
    assert (await client.ask("POST", "/keys", value=made))[0] == 201
    await client.ask("POST", "/mcp/tools/call", value={"name": "demo__echo", "arguments": {"text": "x"}})
    await inside(client.app).audit.flush()  # type: ignore[arg-type]
    status, _, found = await client.ask("GET", path, headers={"accept": "application/json"})
    assert status == 200
    assert found[kind]
    schema = of_list(document, path.partition("?")[0], kind)
    assert set(schema["required"]) <= set(schema["properties"])
    for item in found[kind]:
        assert set(item) <= set(schema["properties"])
        assert set(schema["required"]) <= set(item)


async def test_what_one_server_and_one_key_are_is_documented(client: Client, registered: MemoryServer) -> None:
    _, _, document = await client.ask("GET", "/openapi.json")
    _, _, made = await client.ask("POST", "/keys", value={"name": "k"})
    for path, name, status in (
        ("/mcp/servers/{name}", "demo", "200"), ("/keys/{id}", made["id"], "200"), ("/whoami", "", "200"),
        ("/keys/{id}/access", made["id"], "200"),
    ):  # fmt: skip
        _, _, found = await client.ask("GET", path.replace("{name}", name).replace("{id}", name))
        schema = document["paths"][path]["get"]["responses"][status]["content"]["application/json"]["schema"]
        assert set(found) <= set(schema["properties"]), path
