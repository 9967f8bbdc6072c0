"""As little of a server as can be, on hypercorn as the gateway runs it: what a call costs before there is a gateway.

Usage: `python -m bench.bare constant|hop PORT UPSTREAM`. `constant` answers every call alike; `hop` passes the body on
to the upstream over the gateway's HTTP client, and the answer back, and looks at neither.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import orjson
import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config

from gateway.model.address_policy import Allowed
from gateway.net.dialer import Dialer, Vetting
from gateway.net.http_client import Endpoint
from gateway.run.http1 import install

_JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


class Bare:
    """The application; without an endpoint it answers by itself."""

    def __init__(self, upstream: int | None) -> None:
        self._upstream = upstream
        self._endpoint: Endpoint | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
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
        payload = await self._answer(body) if body else b""
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(payload)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": payload})

    async def _answer(self, body: bytes) -> bytes:
        if self._upstream is None:
            asked = orjson.loads(body)
            text = asked["params"]["arguments"]["text"]
            result = {"content": [{"type": "text", "text": text}], "isError": False}
            return orjson.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result})
        if self._endpoint is None:
            client = Dialer(Vetting(Allowed(everything=True)), connect_seconds=5, via="bench").client({}, 1000)
            self._endpoint = client.endpoint("POST", f"http://127.0.0.1:{self._upstream}/mcp", _JSON)
        response = await self._endpoint.send(body)
        return await response.read(16 << 20) or b""


async def main(kind: str, port: int, upstream: int) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "WARNING"
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = 10_000_000
    config.graceful_timeout = 0.5
    config.include_server_header = False
    install("httptools")
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    app: Any = Bare(upstream if kind == "hop" else None)
    await serve(app, config, shutdown_trigger=ending.wait)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
