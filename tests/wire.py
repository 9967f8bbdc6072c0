"""A server over the bytes of the wire, and an upstream that talks to it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.model.address_policy import Allowed
from gateway.net.dialer import Dialer, Vetting
from gateway.protocol.messages import Request
from gateway.upstream.streamable_http import StreamableHttpUpstream
from gateway.upstream.wire import WireLimits

CALL = Request(1, "tools/call", {"name": "t"})
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}


CUT = b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"


class Wire:
    """A server that answers a POST of each method with prepared bytes; None hangs up at once."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | None] = {
            "initialize": http(200, "application/json", reply(0, HELLO), "mcp-session-id: s1\r\n"),
            "notifications/initialized": http(202, "", b""),
        }
        self.connections = 0
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                message = json.loads(body) if body else {}
                self.seen.append((first.split()[0], headers, message))
                answer = self.answers.get(message.get("method", first.split()[0]), http(500, "", b""))
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
                if answer is CUT or not (b"content-length" in answer or b"chunked" in answer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def http(status: int, media_type: str, body: bytes, more: str = "", *, length: bool = True) -> bytes:
    head = f"HTTP/1.1 {status} X\r\n{more}"
    head += f"content-type: {media_type}\r\n" if media_type else ""
    head += f"content-length: {len(body)}\r\n" if length else "connection: close\r\n"
    return head.encode("latin-1") + b"\r\n" + body


def reply(id: object, result: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "result": result}).encode()


def event(data: bytes) -> bytes:
    return b"event: message\r\ndata: " + data + b"\r\n\r\n"


PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}'


@asynccontextmanager
async def upstream(url: str, **limits: Any) -> AsyncIterator[StreamableHttpUpstream]:
    dialer = Dialer(Vetting(Allowed(everything=True)), connect_seconds=5, via="us")
    one = StreamableHttpUpstream("s", url, dialer.client({"x-key": "v"}), WireLimits(**limits))
    try:
        yield one
    finally:
        await one.close()
