"""Official clients of each revision in each mode, at all servers' address, a server's own and a toolset's.

Two replicas answer in turn. In search mode the tools are found first, then called through the four.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from mcp.client import session as sdk

from tests.fix_stack import KEY, Running, registered
from tests.sdk import Talk, connect

pytestmark = [
    pytest.mark.system,
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]
VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
SIMPLE = "This is a simple text response for testing."


@pytest.fixture(scope="module")
def modes(stack: Running, upstreams: dict[str, str]) -> Iterator[Running]:
    """The everything server as `modes`, and a toolset of it under bare names."""
    with registered(stack, "modes", url=upstreams["streamable_http"]), stack.client() as client:
        spec = {"include": [{"servers": ["modes"]}], "names": "bare", "pinned": ["test_simple_text"]}
        client.put("/mcp/toolsets/modes", json=spec).raise_for_status()
        yield stack
        client.delete("/mcp/toolsets/modes")


@pytest.mark.parametrize("mode", ["full", "search", "auto"])
@pytest.mark.parametrize("address", ["/mcp", "/mcp/servers/modes/mcp", "/mcp/toolsets/modes/mcp", "/sse"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_in_a_mode(
    modes: Running, monkeypatch: pytest.MonkeyPatch, version: str, address: str, mode: str
) -> None:
    monkeypatch.setattr(sdk, "LATEST_HANDSHAKE_VERSION", version)
    prefix = "modes__" if address in ("/mcp", "/sse") else ""
    talk = Talk()
    async with connect(f"{modes.url}{address}?tools={mode}", version, talk, KEY) as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]

        async def call(name: str, **arguments: Any) -> Any:
            if mode != "search":
                return await client.call_tool(f"{prefix}{name}", arguments)
            return await client.call_tool("call_tool", {"name": f"{prefix}{name}", "arguments": arguments})

        if mode == "search":
            assert len(listed) == 4 + ("toolsets" in address)
            found = await client.call_tool(
                "search_tools", {"query": "answer with a plain sentence of text", "limit": 25}
            )
            names = [tool["name"] for tool in json.loads(found.content[0].text)["tools"]]  # type: ignore[union-attr]
            assert f"{prefix}test_simple_text" in names
        else:
            assert f"{prefix}test_simple_text" in listed
        assert (await call("test_simple_text")).content[0].text == SIMPLE
        assert "LLM response" in (await call("test_sampling", prompt="hello")).content[0].text
        assert (await call("test_error_handling")).is_error is True
        assert (await call("structured", width=2, height=3)).structured_content is not None or version < "2025-06-18"
        await call("test_tool_with_logging")
    assert len(talk.asked) == 1
    assert len(talk.logs) >= 3


async def test_both_replicas_serve_one_session(modes: Running) -> None:
    """A session that was opened at one replica searches and calls at the other, in each mode."""
    headers = {
        "authorization": f"Bearer {KEY}",
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
    }
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    path = "/mcp/toolsets/modes/mcp?tools=search"
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=30) as client:

        async def send(replica: str, method: str, **params: Any) -> Any:
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            return await client.post(f"{replica}{path}", json=body)

        opened = await send(modes.replicas[0], "initialize", **hello)
        client.headers["mcp-session-id"] = opened.headers["mcp-session-id"]
        for replica in modes.replicas[::-1]:
            tools = (await send(replica, "tools/list")).json()["result"]["tools"]
            assert [tool["name"] for tool in tools][-1] == "test_simple_text"
            arguments = {"name": "test_simple_text"}
            called = await send(replica, "tools/call", name="call_tool", arguments=arguments)
            assert SIMPLE in called.text


async def test_a_large_result_is_kept_at_one_replica_and_read_on_at_the_other(stack: Running) -> None:
    spill = {"stub.large": {"results": {"max_bytes": 4_096, "overflow": "spill"}}}
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    headers = {"authorization": f"Bearer {KEY}", "accept": "application/json, text/event-stream"}
    with registered(stack, "bulky", overrides=spill):
        async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=60) as client:
            first, second = (f"{replica}/mcp" for replica in stack.replicas)
            opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
            session = (await client.post(first, json=opening)).headers["mcp-session-id"]

            async def call(at: str, name: str, **arguments: Any) -> tuple[Any, int]:
                body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}}
                body["params"] |= {"arguments": arguments}  # type: ignore[operator]  # an object
                answer = await client.post(at, json=body, headers={"mcp-session-id": session})
                return answer.json()["result"], len(answer.content)

            for _ in range(5):  # on a busy machine Redis may be late: then the result is cut
                result, size = await call(first, "bulky__stub.large", bytes=10_000_000)
                if "_meta" in result:
                    break
            assert size < 4_000  # less than a thousand tokens
            [kept] = [each for each in result["_meta"].values() if "ref" in each]
            assert kept["bytes"] > 10_000_000
            page, _ = await call(second, "read_result", ref=kept["ref"], offset=9_000_000, limit=50)
            assert page["content"][0]["text"].startswith("x" * 40)
