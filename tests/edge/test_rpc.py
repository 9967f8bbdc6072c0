from typing import Any

import pytest

from gateway.methods.table import METHODS
from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Servers

pytestmark = pytest.mark.anyio


async def rpc(client: Client, method: str, address: str = "/rpc", **params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    status, _, answer = await client.ask("POST", address, value=body)
    assert (status, answer["id"]) == (200, 1)
    return answer.get("result", answer.get("error"))


@pytest.mark.parametrize("spell", ["mcp.servers.{}", "mcp/servers/{}"])
@pytest.mark.parametrize("address", ["/rpc", "/mcp/servers"])
async def test_servers_are_managed_in_both_spellings(
    client: Client, servers: Servers, spell: str, address: str
) -> None:
    servers["a"] = MemoryServer()

    async def call(verb: str, **params: Any) -> Any:
        return await rpc(client, spell.format(verb), address, **params)

    assert (await call("register", name="a", url="http://a.test/mcp"))["state"] == "ready"
    assert [server["name"] for server in (await call("list"))["servers"]] == ["a"]
    assert (await call("update", server_id="a", description="new"))["description"] == "new"
    assert (await call("refresh", name="a"))["state"] == "ready"
    assert (await call("get", name="a"))["description"] == "new"
    assert (await call("remove", name="a"))["removed"] is True
    assert (await call("get", name="a"))["code"] == -32602


async def test_mcp_methods_need_no_session(client: Client, registered: MemoryServer) -> None:
    assert [tool["name"] for tool in (await rpc(client, "tools/list"))["tools"]] == ["demo__echo"]
    assert "content" in await rpc(client, "tools/call", name="echo")


async def test_an_address_serves_the_methods_that_belong_to_it(client: Client) -> None:
    assert (await rpc(client, "mcp.servers.list", "/mcp/tools/call"))["code"] == -32601
    assert (await rpc(client, "tools/call", "/mcp/servers", name="x"))["code"] == -32601


@pytest.mark.parametrize(
    ("body", "status", "code", "id"),
    [
        (b"{", 400, -32700, None),
        (b'{"jsonrpc":"2.0","id":9,"method":3}', 400, -32600, 9),
        (b"[]", 400, -32600, None),
        (b'{"jsonrpc":"2.0","id":9,"method":"nope"}', 200, -32601, 9),
        (b'{"jsonrpc":"2.0","id":9,"method":"mcp.servers.get"}', 200, -32602, 9),
        (b'{"jsonrpc":"2.0","id":9,"method":"mcp.servers.get","params":{"x":1}}', 200, -32602, 9),
        (b'{"jsonrpc":"2.0","id":9,"method":"mcp.servers.register","params":{"name":"a b"}}', 200, -32602, 9),
    ],
)
async def test_errors_keep_the_requests_id(client: Client, body: bytes, status: int, code: int, id: object) -> None:
    got, _, answer = await client.ask("POST", "/rpc", body=body)
    assert (got, answer["error"]["code"], answer["id"]) == (status, code, id)


async def test_a_batch_is_answered_in_its_order(client: Client, registered: MemoryServer) -> None:
    batch = [{"jsonrpc": "2.0", "id": n, "method": method} for n, method in enumerate(["ping", "nope", "tools/list"])]
    _, _, answers = await client.ask("POST", "/rpc", value=batch)
    assert [answer["id"] for answer in answers] == [0, 1, 2]
    assert [("result" in answer) for answer in answers] == [True, False, True]


async def test_a_surprise_is_masked(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: object, revision: int) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr("gateway.registry.servers.ServerTable.put", broken)
    error = await rpc(client, "mcp.servers.register", name="a", url="http://a.test/")
    assert error["code"] == -32603
    assert "42" not in str(error)
    assert set(METHODS) >= {"aggregate", "server", "rpc"}
