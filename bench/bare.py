"""The upstream of the benchmarks: as little of an MCP server as a gateway can talk to, on bare hypercorn."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import orjson
import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config

RESULT = {"content": [{"type": "text", "text": "x" * 200}], "isError": False}
TOOLS = [{"name": "bench", "description": "Answers at once", "inputSchema": {"type": "object"}}]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = orjson.loads(body) if body else {}
    answer = _answer(asked)
    status = 200 if answer else 202
    payload = orjson.dumps({"jsonrpc": "2.0", "id": asked.get("id"), "result": answer}) if answer else b""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(payload)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": payload})


def _answer(asked: dict[str, Any]) -> dict[str, Any] | None:
    match asked.get("method"):
        case "tools/call":
            return RESULT
        case "tools/list":
            return {"tools": TOOLS}
        case "initialize":
            info = {"name": "bench", "version": "1"}
            return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
    return None


async def main(port: int) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "WARNING"
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = 10_000_000
    config.graceful_timeout = 0.5
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    await serve(app, config, shutdown_trigger=ending.wait)  # type: ignore[arg-type]


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
