"""What a server does not list is not sent to it, at its own address; a tool that it adds is found."""

import asyncio
from typing import Any

import pytest

from gateway.methods import looks
from gateway.upstream.memory import MemoryServer
from tests.fix_gateway import Open, Servers
from tests.talk import OWN, call, initialize, request

pytestmark = pytest.mark.anyio
DEMO = {"name": "demo", "url": "http://demo.test/mcp"}


async def _echo(*_: Any) -> Any:
    return {"content": []}


def asked(demo: MemoryServer, method: str) -> int:
    return sum(each.method == method for each in demo.requests)


@pytest.fixture
def demo(servers: Servers) -> MemoryServer:
    servers["demo"] = MemoryServer(prompts=[{"name": "greet"}])
    return servers["demo"]


@pytest.mark.parametrize(
    ("method", "name"), [("tools/call", "hidden"), ("prompts/get", "hidden"), ("tools/call", "ech")]
)
async def test_what_is_not_listed_is_refused_and_never_sent(
    open_app: Open, demo: MemoryServer, method: str, name: str
) -> None:
    async with open_app() as (_, client):
        await client.ask("POST", "/mcp/servers", value=DEMO)
        session = await initialize(client)
        listing, before = f"{method.partition('/')[0]}/list", len(demo.requests)
        for _ in range(5):
            _, _, answer = await client.ask("POST", OWN, value=request(method, 3, name=name), headers=session)
            assert (answer["error"]["code"], answer["id"]) == (-32602, 3)
        if name == "ech":
            assert answer["error"]["data"]["did_you_mean"] == ["echo"]
        assert [each.method for each in demo.requests[before:]] == [listing]  # one look, and nothing else
        assert (await call(client, session, "echo"))["result"]


async def test_a_tool_that_is_added_in_mid_session_is_found(
    open_app: Open, demo: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "_AGAIN_SECONDS", 0.05)
    async with open_app() as (_, client):
        await client.ask("POST", "/mcp/servers", value=DEMO)
        session = await initialize(client)
        assert "error" in await call(client, session, "new")
        demo.tools["new"] = _echo
        await asyncio.sleep(0.1)
        answers = await asyncio.gather(*(call(client, session, "new", id=number) for number in range(1, 9)))
        assert all("result" in answer for answer in answers)
        assert asked(demo, "tools/list") == 3  # at the registration, and a look each


async def test_an_operator_can_have_everything_forwarded(open_app: Open, demo: MemoryServer) -> None:
    async with open_app(unlisted="forward") as (_, client):
        await client.ask("POST", "/mcp/servers", value=DEMO)
        session = await initialize(client)
        await call(client, session, "hidden")
        assert asked(demo, "tools/call") == 1


async def test_a_list_without_end_is_not_kept(open_app: Open, demo: MemoryServer) -> None:
    async with open_app() as (_, client):
        await client.ask("POST", "/mcp/servers", value=DEMO)
        session = await initialize(client)
        demo.tools |= {f"{number}{'x' * 4000}": _echo for number in range(300)}
        assert "lists too much" in (await call(client, session, "hidden"))["error"]["message"]
