"""`make layers`: what our own layers take of a call, without a server, a socket or an upstream's wire.

One gateway in this process, on stores of its own; its server answers at once. *In* is the time from the request's head
at the application to the request's head at the upstream, *out* from the upstream's answer to the last byte sent.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvloop

from gateway.edge.app import Application
from gateway.model.server import ServerSpec
from gateway.observability import logs
from gateway.protocol.exchange import Handshake, Hello
from gateway.protocol.messages import Failure, Notification, Reply, Request, decode_answer
from gateway.run.embedded import Stores
from gateway.settings import Settings
from gateway.upstream.contract import Heard, NoStream, UpstreamSession

KEY = "layers-key-of-this-run"
_TEXT = "the quick brown fox jumps over the lazy dog, 0123456789, and then some more text to fill it"
_RESULT = {"content": [{"type": "text", "text": _TEXT}], "isError": False}
_TOOL = {"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}
_NOTHING: tuple[Heard, ...] = ()


class Instant:
    """An upstream that answers at once, and remembers when."""

    def __init__(self) -> None:
        self.entered = self.left = 0.0

    async def open(self, hello: Hello) -> UpstreamSession:
        return UpstreamSession(Handshake("2025-11-25", {"tools": {}}, {}, None), "s")

    async def call(self, session: UpstreamSession, request: Request) -> Reply | Failure:
        self.entered = time.perf_counter()
        result = {"tools": [_TOOL]} if request.method == "tools/list" else _RESULT
        raw = json.dumps({"jsonrpc": "2.0", "id": request.id, "result": result}, separators=(",", ":")).encode()
        found = decode_answer(raw)
        assert isinstance(found, Reply | Failure)
        self.left = time.perf_counter()
        return found

    async def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        for each in _NOTHING:
            yield each
        raise NoStream

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        pass

    async def end(self, session: UpstreamSession) -> None:
        pass

    async def close(self) -> None:
        pass


class Exchange:
    """One request and its answer, with the ways that our own server has beside ASGI's (`run/http1_exchange`)."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.status = 0
        self.headers: Sequence[tuple[bytes, bytes]] = ()
        self.ended = 0.0

    def whole_body(self) -> bytes:
        return self._body

    def answer(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self.ended = time.perf_counter()
        self.status, self.headers = status, headers

    def call_when_left(self, callback: Callable[[], None]) -> None:
        pass

    async def receive(self) -> Any:
        raise RuntimeError("the body is at hand")

    async def send(self, message: Any) -> None:
        raise RuntimeError("the answer is whole")


class Client:
    """Sends one prepared request at a time, as a server would, and times it."""

    def __init__(self, app: Application, upstream: Instant) -> None:
        self._app = app
        self._upstream = upstream
        self.session: list[tuple[bytes, bytes]] = []

    async def send(self, path: str, body: bytes) -> tuple[float, float]:
        """Seconds in and out."""
        headers = [
            (b"host", b"localhost"), (b"authorization", f"Bearer {KEY}".encode()),
            (b"accept", b"application/json, text/event-stream"), (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()), *(self.session if path == "/mcp" else ()),
        ]  # fmt: skip
        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode(),
            "query_string": b"", "root_path": "", "scheme": "http", "headers": headers,
        }  # fmt: skip
        exchange = Exchange(body)
        began = time.perf_counter()
        await self._app(scope, exchange.receive, exchange.send)
        if exchange.status >= 300:
            raise RuntimeError(f"{path}: HTTP {exchange.status}")
        self.session += [pair for pair in exchange.headers if pair[0] == b"mcp-session-id"]
        return self._upstream.entered - began, exchange.ended - self._upstream.left


def rpc(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


async def run(database_url: str, redis_url: str, calls: int) -> list[str]:
    """Open a gateway on these stores, and time the calls."""
    upstream = Instant()

    def connect(spec: ServerSpec) -> Instant:
        return upstream

    async def resolve(host: str) -> list[Any]:
        return [ip_address("127.0.0.1")]

    settings = Settings(master_key=KEY, database_url=database_url, redis_url=redis_url, allow_private_upstreams=True)
    app = Application(settings, connect=connect, resolve=resolve)
    lines = [f"{'address':24} {'in':>8} {'out':>8}   us, the lower quartile of {calls} calls"]
    async with app.lifespan():
        client = Client(app, upstream)
        await client.send("/mcp/servers", json.dumps({"name": "demo", "url": "http://demo.test/mcp"}).encode())
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        await client.send("/mcp", rpc("initialize", **hello))
        echo = {"name": "demo__echo", "arguments": {"text": _TEXT}}
        bodies = {"/mcp": rpc("tools/call", **echo), "/rpc": rpc("tools/call", **echo)}
        bodies["/mcp/tools/call"] = json.dumps(echo).encode()
        for path, body in bodies.items():
            for _ in range(500):
                await client.send(path, body)
            gc.collect()
            found = [await client.send(path, body) for _ in range(calls)]
            ways = [statistics.quantiles(each, n=4)[0] * 1e6 for each in zip(*found, strict=True)]
            lines.append(f"{path:24} {ways[0]:8.1f} {ways[1]:8.1f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="make layers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=5000)
    calls = parser.parse_args().calls
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # lines are written as in earnest, and nobody reads them
    logs.configure("json", "info")
    with tempfile.TemporaryDirectory() as folder:
        stores = Stores(Path(folder) / "stores")
        urls = stores.start()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                print("\n".join(runner.run(run(urls.database_url, urls.redis_url, calls))))
        finally:
            stores.stop()


if __name__ == "__main__":
    main()
