"""A server that hangs, floods or flaps in its tool, on bare asyncio: `python bad_server.py KIND PORT`."""

import asyncio
import itertools
import json
import sys
from typing import Any

_HELLO = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "bad", "version": "1"}}
_TOOLS = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
_EVENT = json.dumps(
    {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 500}}
)
_counter = itertools.count()


async def serve(kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            body = await reader.readexactly(int(lengths[0][15:])) if lengths else b""
            asked: dict[str, Any] = json.loads(body) if body else {}
            method = asked.get("method")
            if method == "tools/call":
                await misbehave(kind, asked["id"], writer)
            elif method in ("initialize", "tools/list"):
                result = _HELLO if method == "initialize" else _TOOLS
                await answer(writer, {"jsonrpc": "2.0", "id": asked["id"], "result": result})
            else:
                writer.write(b"HTTP/1.1 202 X\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def misbehave(kind: str, id: Any, writer: asyncio.StreamWriter) -> None:
    match kind:
        case "hangs":
            await asyncio.sleep(3600)
        case "floods":
            writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\n")
            while True:
                writer.write(b"data: %s\n\n" % _EVENT.encode() * 20)
                await writer.drain()
                await asyncio.sleep(0.001)
        case "flaps":
            if next(_counter) % 3:
                raise ConnectionResetError
            await answer(writer, {"jsonrpc": "2.0", "id": id, "result": {"content": []}})


async def answer(writer: asyncio.StreamWriter, message: Any) -> None:
    body = json.dumps(message).encode()
    writer.write(
        b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    )


async def main(kind: str, port: int) -> None:
    server = await asyncio.start_server(lambda reader, writer: serve(kind, reader, writer), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
