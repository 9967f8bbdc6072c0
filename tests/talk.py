"""What an MCP client says, for tests in this process: sessions, calls, answers to questions."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from gateway.edge.app import Application
from gateway.methods.services import Gateway
from gateway.protocol.messages import Failure, Notification, Reply, Request
from gateway.upstream.memory import Emit, MemoryServer, Tool
from tests.asgi import Answer, Client
from tests.waiting import until

BOTH = {"accept": "application/json, text/event-stream"}
STREAM = {"accept": "text/event-stream"}
OWN = "/mcp/servers/demo/mcp"
EVERYTHING = {"sampling": {}, "roots": {"listChanged": True}, "elicitation": {"form": {}, "url": {}}}


def request(method: str, id: Any = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


async def handshake(client: Client, address: str = "/mcp", version: str = "2025-11-25") -> dict[str, str]:
    """Open a session; return the headers of its further requests."""
    body = request("initialize", protocolVersion=version, capabilities={}, clientInfo={"name": "t", "version": "1"})
    status, headers, answer = await client.ask("POST", address, value=body, headers=BOTH)
    assert status == 200, answer
    assert answer["result"]["protocolVersion"] == version
    session = BOTH | {"mcp-session-id": headers["mcp-session-id"], "mcp-protocol-version": version}
    told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await client.ask("POST", address, value=told, headers=session))[0] == 202
    return session


async def ask(client: Client, address: str, session: Mapping[str, str], method: str, **params: Any) -> Any:
    status, _, answer = await client.ask("POST", address, value=request(method, "i", **params), headers=session)
    assert (status, answer["id"]) == (200, "i")
    return answer.get("result", answer.get("error"))


async def ends(worker: Client, session: Mapping[str, str]) -> None:
    """Wait until a worker no longer knows the session."""
    status = 0
    async with asyncio.timeout(10):
        while status != 404:
            status, _, _ = await worker.ask("POST", "/mcp", value=request("ping"), headers=session)
            await asyncio.sleep(0.02)


def inside(app: Application) -> Gateway:
    assert app.gateway is not None
    return app.gateway


async def offer(client: Client, demo: MemoryServer, **tools: Tool) -> None:
    demo.tools |= tools
    await client.ask("POST", "/mcp/servers/demo/refresh")


async def initialize(
    client: Client,
    address: str = OWN,
    version: str = "2025-11-25",
    capabilities: Mapping[str, Any] = EVERYTHING,
) -> dict[str, str]:
    body = request(
        "initialize", protocolVersion=version, capabilities=capabilities, clientInfo={"name": "me", "version": "7"}
    )
    status, headers, answer = await client.ask("POST", address, value=body, headers=BOTH)
    assert status == 200, answer
    return BOTH | {"mcp-session-id": headers["mcp-session-id"], "mcp-protocol-version": version}


async def call(
    client: Client, session: Mapping[str, str], name: str, address: str = OWN, id: Any = 1, **arguments: Any
) -> Any:
    body = request("tools/call", id, name=name, arguments=arguments)
    _, _, answer = await client.ask("POST", address, value=body, headers=session)
    if isinstance(answer, bytes):
        return [json.loads(line[6:]) for line in answer.decode().splitlines() if line.startswith("data: {")][-1]
    return answer


async def tell(
    client: Client, session: Mapping[str, str], message: Mapping[str, Any], address: str = OWN
) -> tuple[int, Any]:
    status, _, answer = await client.ask("POST", address, value={"jsonrpc": "2.0", **message}, headers=session)
    return status, answer


def asking(demo: MemoryServer, method: str, **params: Any) -> Tool:
    """A tool that asks the client something, and answers with what came back."""

    async def tool(_: Request, emit: Emit) -> Any:
        before = len(demo.posted)
        await emit(Request(f"q-{before}", method, params))
        await until(lambda: any(isinstance(each, Reply | Failure) for each in demo.posted[before:]))
        [answer] = [each for each in demo.posted[before:] if isinstance(each, Reply | Failure)]
        said = answer.result if isinstance(answer, Reply) else {"code": answer.code}
        return {"content": [{"type": "text", "text": json.dumps([answer.id, said])}]}

    return tool


async def next_message(answer: Answer) -> Any:
    event = await answer.event()
    assert event is not None
    return json.loads(event.data)


async def counting(request: Request, emit: Emit) -> Any:
    for number in range(5):
        await emit(Notification("notifications/message", {"level": "info", "data": number}))
        await asyncio.sleep(0.02)
    return {"content": []}
