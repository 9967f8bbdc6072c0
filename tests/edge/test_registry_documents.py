import re

import pytest

from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers

pytestmark = pytest.mark.anyio
NAME = re.compile(r"^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$")


async def test_the_document_begins_with_the_gateway_and_lists_the_servers(
    client: Client, registered: MemoryServer
) -> None:
    status, headers, document = await client.ask("GET", "/v1/mcp/registry.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    own, demo = document["servers"]
    assert own["server"]["remotes"][0]["url"] == "http://localhost/mcp"
    assert demo["server"]["name"] == "localhost/demo"
    assert demo["server"]["remotes"][0]["url"] == "http://localhost/mcp/servers/demo/mcp"
    assert demo["_meta"]["io.modelcontextprotocol.registry/official"]["isLatest"] is True
    assert document["metadata"] == {"count": 2}
    assert all(NAME.match(entry["server"]["name"]) for entry in document["servers"])


async def test_toolsets_stand_in_it(client: Client, registered: MemoryServer, servers: Servers) -> None:
    servers["toolset-research"] = MemoryServer()
    for name in ("toolset-research",):
        await client.ask("POST", "/mcp/servers", value={"name": name, "url": f"http://{name}.test/mcp"})
    for slug, enabled in (("research", True), ("off", False)):
        spec = {"title": "Research", "include": [{"servers": ["demo"]}], "enabled": enabled}
        assert (await client.ask("PUT", f"/mcp/toolsets/{slug}", value=spec))[0] == 200
    _, _, document = await client.ask("GET", "/v1/mcp/registry.json")
    names = [entry["server"]["name"] for entry in document["servers"]]
    assert names[1:] == ["localhost/demo", "localhost/toolset-research", "localhost/mcp-toolset-research"]
    assert document["servers"][-1]["server"]["remotes"][0]["url"] == "http://localhost/mcp/toolsets/research/mcp"
    assert document["servers"][-1]["server"]["title"] == "Research"
    assert all(NAME.match(name) for name in names)


async def test_no_secret_and_no_upstream_address_is_in_it(client: Client, servers: Servers) -> None:
    servers["a"] = MemoryServer()
    spec = {"name": "a", "url": "http://a.test/mcp?token=s3cret", "headers": {"X": "s3cret"}, "description": "d" * 300}
    await client.ask("POST", "/mcp/servers", value=spec)
    _, _, document = await client.ask("GET", "/v1/mcp/registry.json")
    assert "s3cret" not in str(document)
    assert "a.test" not in str(document)
    assert len(document["servers"][1]["server"]["description"]) == 100


async def test_the_public_url_rules_every_url(open_app: Open) -> None:
    async with open_app(public_url="https://mcp.example.org/base") as (_, client):
        _, _, document = await client.ask("GET", "/v1/mcp/registry.json")
    assert document["servers"][0]["server"]["name"] == "org.example.mcp/gateway"
    assert document["servers"][0]["server"]["remotes"][0]["url"] == "https://mcp.example.org/base/mcp"


async def test_the_official_paths_show_the_same_data(client: Client, registered: MemoryServer) -> None:
    _, _, first = await client.ask("GET", "/v0.1/servers?limit=1")
    _, _, second = await client.ask("GET", f"/v0.1/servers?limit=1&cursor={first['metadata']['nextCursor']}")
    assert [entry["server"]["name"] for page in (first, second) for entry in page["servers"]] == [
        "localhost/gateway", "localhost/demo"
    ]  # fmt: skip
    assert "nextCursor" not in second["metadata"]
    for name in ("localhost%2Fdemo", "localhost/demo"):
        _, _, versions = await client.ask("GET", f"/v0.1/servers/{name}/versions")
        _, _, latest = await client.ask("GET", f"/v0.1/servers/{name}/versions/latest")
        _, _, exact = await client.ask("GET", f"/v0.1/servers/{name}/versions/1.0.0")
        assert versions["servers"] == [latest] == [exact]
    assert (await client.ask("GET", "/v0.1/servers?search=DEMO"))[2]["metadata"]["count"] == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v0.1/servers?limit=0", 422),
        ("/v0.1/servers?limit=x", 422),
        ("/v0.1/servers?limit=%C2%B2", 422),
        ("/v0.1/servers?limit=000000001" + "0" * 5000, 422),
        ("/v0.1/servers?cursor=nobody", 422),
        ("/v0.1/servers/localhost%2Fnobody/versions", 404),
        ("/v0.1/servers/localhost%2Fgateway/versions/9.9.9", 404),
        ("/v0.1/servers/localhost%2Fgateway", 404),
    ],
)
async def test_what_is_not_there_is_a_problem(client: Client, path: str, status: int) -> None:
    assert (await client.ask("GET", path))[0] == status


async def test_preflight_is_answered_without_a_key(stranger: Client) -> None:
    status, headers, _ = await stranger.ask("OPTIONS", "/v1/mcp/registry.json")
    assert (status, headers["access-control-allow-methods"]) == (204, "GET, OPTIONS")
    assert headers["access-control-allow-headers"] == "Authorization, Content-Type"
