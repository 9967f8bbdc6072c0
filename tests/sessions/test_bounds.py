"""What one client, or one server, can have kept of itself is bounded; what is refused says so and names the setting."""

import pytest

from gateway.protocol import exchange
from gateway.protocol.exchange import HandshakeRefused
from gateway.protocol.messages import Reply
from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import OWN, STREAM, call, initialize, inside, request

pytestmark = pytest.mark.anyio
DEMO = {"name": "demo", "url": "http://demo.test/mcp"}
LARGE = {"sampling": {}, "experimental": {"x": "y" * (64 << 10)}}


@pytest.mark.parametrize("what", ["capabilities", "clientInfo"])
async def test_what_a_client_says_of_itself_is_bounded(client: Client, what: str) -> None:
    said = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    body = request("initialize", **{**said, what: LARGE})
    status, headers, answer = await client.ask("POST", "/mcp", value=body)
    assert (status, answer["error"]["code"]) == (413, -32600)
    assert "GATEWAY_MAX_HELLO" in answer["error"]["message"]
    assert "mcp-session-id" not in headers


async def test_so_it_is_in_the_old_transport(client: Client) -> None:
    async with client.open("GET", "/sse", headers=STREAM) as stream:
        endpoint = await stream.event()
        assert endpoint is not None
        body = request("initialize", protocolVersion="2024-11-05", capabilities=LARGE, clientInfo={})
        assert (await client.ask("POST", endpoint.data.decode(), value=body))[0] == 202
        answer = await stream.event()
        assert answer is not None
        assert b"GATEWAY_MAX_HELLO" in answer.data


@pytest.mark.parametrize("address", ["/mcp", OWN])
async def test_subscriptions_of_a_session_are_bounded(open_app: Open, servers: Servers, address: str) -> None:
    servers["demo"] = MemoryServer(resources=[{"uri": f"a:{number}", "name": "r"} for number in range(3)])
    async with open_app(max_subscriptions=2) as (_, client):
        await client.ask("POST", "/mcp/servers", value=DEMO)
        session = await initialize(client, address)

        async def ask(method: str, uri: str) -> str:
            _, _, answer = await client.ask("POST", address, value=request(method, uri=uri), headers=session)
            return str(answer.get("error", {}).get("message", "done"))

        assert [await ask("resources/subscribe", f"a:{number}") for number in (0, 1, 1)] == ["done"] * 3
        assert "GATEWAY_MAX_SUBSCRIPTIONS" in await ask("resources/subscribe", "a:2")
        assert servers["demo"].requests[-1].params["uri"] == "a:1"  # the server was not asked
        assert await ask("resources/unsubscribe", "a:0") == "done"
        assert await ask("resources/subscribe", "a:2") == "done"


async def test_what_a_server_says_of_itself_is_bounded(open_app: Open, servers: Servers) -> None:
    with pytest.raises(HandshakeRefused, match="64 KiB"):
        exchange.accept(Reply(0, {"protocolVersion": "2025-11-25", "capabilities": {"experimental": LARGE}}))
    said = {"protocolVersion": "2025-11-25", "capabilities": {}, "instructions": "i" * (1 << 20)}
    assert len(exchange.accept(Reply(0, said)).instructions or "") == 64 << 10


async def test_a_servers_instructions_are_not_in_the_record_of_each_session(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer(instructions="how to use it")
    async with open_app() as (app, client):
        await client.ask("POST", "/mcp/servers", value=DEMO)
        session = await initialize(client)
        assert (await call(client, session, "echo"))["result"]
        [key] = inside(app).sessions.keys()
        record = await inside(app).sessions._records.read(key)
        assert record is not None
        assert record.upstream["demo"].session.handshake.instructions is None
