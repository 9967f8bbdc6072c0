"""Servers that speak only the plain REST face, found by probing or named."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.demo.stub import Stub
from gateway.errors import UpstreamProtocolError, UpstreamRefused
from gateway.model.address_policy import Allowed
from gateway.model.server import ServerSpec
from gateway.net.dialer import Dialer, Vetting
from gateway.protocol.messages import Failure, Reply, Request
from gateway.stores.hints import Hints
from gateway.stores.inbox import Inbox
from gateway.stores.redis import Redis
from gateway.stores.streams import Streams
from gateway.upstream.contract import Upstream
from gateway.upstream.factory import over_http
from gateway.upstream.link import OURSELVES
from gateway.upstream.relayed import Relay
from gateway.upstream.wire import WireLimits

pytestmark = pytest.mark.anyio


INITIALIZED = (
    b'{"jsonrpc": "2.0", "id": 0, "result": {"protocolVersion": "2025-11-25", "capabilities": {}, '
    b'"serverInfo": {"name": "s", "version": "1"}}}'
)


class Face:
    """The stub's REST face behind bare HTTP; `refuse` makes everything else 404, as the validation's stub did."""

    def __init__(self) -> None:
        self.stub = Stub()
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path, _ = head.decode().split("\r\n")[0].split()
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                status, body = await self._answer(method, path, await reader.readexactly(length))
                writer.write(
                    b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                    % (status, len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path in self.answers:
            return self.answers[path]
        if path == "/mcp":
            return 404, b'{"detail": "not found"}'
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.stub({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
        return sent[0]["status"], sent[1]["body"]


@pytest.fixture
async def face() -> AsyncIterator[Face]:
    face = Face()
    server = await asyncio.start_server(face.serve, "127.0.0.1", 0)
    face.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    yield face
    server.close()


@pytest.fixture
async def connect(face: Face) -> AsyncIterator[Callable[[str], Upstream]]:
    made: list[Upstream] = []
    redis = Redis("redis://127.0.0.1:1", "nobody")  # no session is bound to a process here
    relay = Relay(redis, Inbox(redis, Streams(redis), 1), "us", Hints("redis://127.0.0.1:1").broadcast)
    way = over_http(
        Dialer(Vetting(Allowed(everything=True)), connect_seconds=5, via="us"), WireLimits(5, 10_000), relay
    )

    def connect(transport_type: str) -> Upstream:
        made.append(way(ServerSpec("s", face.url, transport_type=transport_type)))
        return made[-1]

    yield connect
    for upstream in made:
        await upstream.close()


async def ask(upstream: Upstream, method: str, **params: Any) -> Any:
    answer = await upstream.call(await upstream.open(OURSELVES), Request(1, method, params))
    return answer.result if isinstance(answer, Reply) else answer


@pytest.mark.parametrize("transport_type", ["streamable_http", "rest"])
async def test_its_tools_and_resources_become_mcps(
    face: Face, connect: Callable[[str], Upstream], transport_type: str
) -> None:
    upstream = connect(transport_type)
    tools = (await ask(upstream, "tools/list"))["tools"]
    echo = next(tool for tool in tools if tool["name"] == "stub.echo")
    assert echo["inputSchema"]["required"] == ["text"]
    assert "input_schema" not in echo
    resources = (await ask(upstream, "resources/list"))["resources"]
    assert resources[0]["uri"] == "stub://test-resource-1"


async def test_a_call_becomes_a_tool_result(face: Face, connect: Callable[[str], Upstream]) -> None:
    result = await ask(connect("rest"), "tools/call", name="stub.sum", arguments={"values": [1, 2]})
    assert result["structuredContent"] == {"sum": 3}


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (b'{"result": {"x": 1}}', {"content": [{"type": "text", "text": '{"x":1}'}], "structuredContent": {"x": 1}}),
        (b'{"y": [2]}', {"content": [{"type": "text", "text": '{"y":[2]}'}], "structuredContent": {"y": [2]}}),
        (b'"plain"', {"content": [{"type": "text", "text": "plain"}]}),
        (b"[1]", {"content": [{"type": "text", "text": "[1]"}]}),
    ],
)
async def test_any_json_becomes_content(
    face: Face, connect: Callable[[str], Upstream], body: bytes, result: Any
) -> None:
    face.answers["/mcp/tools/call"] = 200, body
    assert await ask(connect("rest"), "tools/call", name="t") == result


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
async def test_its_errors_are_the_tools_own(face: Face, connect: Callable[[str], Upstream], status: int) -> None:
    face.answers["/mcp/tools/call"] = status, json.dumps({"detail": "no"}).encode()
    result = await ask(connect("rest"), "tools/call", name="t")
    assert result["isError"] is True
    assert str(status) in result["content"][0]["text"]
    assert "no" in result["content"][0]["text"]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"<html>", UpstreamProtocolError),
        (200, b'"' + b"x" * 20_000 + b'"', UpstreamProtocolError),
        (401, b"", UpstreamRefused),
    ],
)
async def test_what_is_no_answer_is_a_named_error(
    face: Face, connect: Callable[[str], Upstream], status: int, body: bytes, expected: type[Exception]
) -> None:
    face.answers["/mcp/tools/call"] = status, body
    with pytest.raises(expected):
        await ask(connect("rest"), "tools/call", name="t")


async def test_what_it_can_not_do_is_said(face: Face, connect: Callable[[str], Upstream]) -> None:
    answer = await ask(connect("rest"), "prompts/get", name="p")
    assert isinstance(answer, Failure)
    assert answer.code == -32601


async def test_a_server_that_is_neither_says_what_mcp_said(face: Face, connect: Callable[[str], Upstream]) -> None:
    face.answers["/mcp/tools"] = 404, b"{}"
    with pytest.raises(UpstreamProtocolError, match="HTTP 404"):
        await connect("streamable_http").open(OURSELVES)


async def test_a_refused_key_is_no_verdict(face: Face, connect: Callable[[str], Upstream]) -> None:
    face.answers["/mcp"] = 401, b""
    with pytest.raises(UpstreamRefused):
        await connect("streamable_http").open(OURSELVES)


async def test_where_a_url_has_no_path_the_right_one_is_named(face: Face, connect: Callable[[str], Upstream]) -> None:
    for root in (face.url.removesuffix("/mcp"), face.url.removesuffix("mcp")):
        face.url = root
        face.answers |= {"/": (404, b"{}"), "/tools": (404, b"{}"), "/mcp": (200, INITIALIZED)}
        with pytest.raises(UpstreamProtocolError, match=r"seems to be http://127\.0\.0\.1:\d+/mcp: register that URL"):
            await connect("streamable_http").open(OURSELVES)
        face.answers["/mcp"] = 404, b"{}"
        with pytest.raises(UpstreamProtocolError, match=r"answered HTTP 404\.$"):
            await connect("streamable_http").open(OURSELVES)
