"""`make trace`: how long a request's way is, in frames of our own code, in files, and in moves between files.

One gateway in this process, on stores of its own, its server in memory; each walk is done twice before it is traced, so
that what is made once (a link, a session) is there. A frame is a call of a Python function below `gateway/`, counted
once however often a coroutine is resumed. Only what belongs to the request is counted: a context variable marks it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import gateway
from gateway.edge.app import Application
from gateway.model.server import ServerSpec
from gateway.protocol.messages import Message, Request
from gateway.run.embedded import Stores
from gateway.settings import Settings
from gateway.stores.postgres import Postgres
from gateway.upstream.contract import Upstream
from gateway.upstream.memory import MemoryServer, MemoryUpstream

KEY = "trace-key-of-this-run"
ROOT = str(Path(gateway.__file__).parent)
_traced: ContextVar[bool] = ContextVar("traced", default=False)


class Trace:
    """Counts frames while it is on; `report` says how many there were, and where."""

    def __init__(self) -> None:
        self.seen: dict[int, FrameType] = {}
        self.functions: Counter[tuple[str, str]] = Counter()
        self.files: list[str] = []

    def __enter__(self) -> Trace:
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or id(frame) in self.seen or not _traced.get():
            return
        name = frame.f_code.co_filename
        if name.startswith(ROOT):
            self.seen[id(frame)] = frame  # kept, so that no other frame gets its id
            file = name[len(ROOT) + 1 :]
            self.functions[file, frame.f_code.co_qualname] += 1
            self.files.append(file)

    def report(self, name: str, more: str = "") -> str:
        moves = sum(a != b for a, b in zip(self.files, self.files[1:], strict=False))
        counts = f"{len(self.files):6} {len(self.functions):10} {len(set(self.files)):6} {moves:6}"
        return f"{name:34} {counts}  {more}".rstrip()


class Client:
    """Sends requests to the application in this process; an answer is read to its end."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self.session: list[tuple[bytes, bytes]] = []

    async def send(self, path: str, value: Any, accept: str = "application/json, text/event-stream") -> list[bytes]:
        """One POST; return the parts of the answer's body."""
        parts, asked = list[bytes](), [{"type": "http.request", "body": json.dumps(value).encode()}]
        headers = [
            (b"host", b"localhost"), (b"authorization", f"Bearer {KEY}".encode()), (b"accept", accept.encode()),
            (b"content-type", b"application/json"), *(self.session if path == "/mcp" else ()),
        ]  # fmt: skip
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "headers": headers}

        async def receive() -> Any:
            return asked.pop() if asked else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                parts.append(message["body"])
            else:
                self.session += [pair for pair in message["headers"] if pair[0] == b"mcp-session-id"]

        await self._app(scope, receive, send)
        return parts


@contextmanager
def transactions_counted() -> Iterator[list[None]]:
    """One entry for each transaction in Postgres that a traced request makes."""
    made, original = list[None](), Postgres.transaction

    def transaction(self: Postgres) -> Any:
        if _traced.get():
            made.append(None)
        return original(self)

    with patch.object(Postgres, "transaction", transaction):
        yield made


def rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


async def asks(request: Request, emit: Callable[[Message], Awaitable[None]]) -> Any:
    """A tool that asks its client for its roots, and answers without waiting for them."""
    await emit(Request("question", "roots/list", {}))
    return {"content": []}


async def walks(app: Application, show: str | None) -> list[str]:
    """Do each walk, and say how long it was."""
    client = Client(app)
    await client.send("/mcp/servers", {"name": "demo", "url": "http://demo.test/mcp"})
    await client.send(
        "/mcp",
        rpc(
            "initialize",
            protocolVersion="2025-11-25",
            capabilities={"roots": {}},
            clientInfo={"name": "t", "version": "1"},
        ),
    )
    number = 0

    async def register() -> None:
        nonlocal number
        number += 1
        await client.send("/mcp/servers", {"name": f"more{number}", "url": "http://more.test/mcp"})

    async def question() -> None:
        events = b"".join(await client.send("/mcp", rpc("tools/call", name="demo__asks")))
        [asked] = [
            json.loads(line[6:])
            for line in events.split(b"\n")
            if line.startswith(b"data: {") and b"roots/list" in line
        ]
        await client.send("/mcp", {"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}})

    echo = {"name": "demo__echo", "arguments": {"text": "hello"}}
    ways: dict[str, Callable[[], Awaitable[Any]]] = {
        "tools/call at /mcp": lambda: client.send("/mcp", rpc("tools/call", **echo)),
        "tools/call at /rpc": lambda: client.send("/rpc", rpc("tools/call", **echo)),
        "POST /mcp/tools/call": lambda: client.send("/mcp/tools/call", echo),
        "a question and its answer": question,
        "a registration": register,
    }
    lines = [f"{'walk':34} {'frames':>6} {'functions':>10} {'files':>6} {'moves':>6}"]
    for name, walk in ways.items():
        for _ in range(2):
            await walk()
        trace = Trace()
        _traced.set(True)
        with trace, transactions_counted() as transactions:
            await walk()
        _traced.set(False)
        lines.append(trace.report(name, f"{len(transactions)} transactions" if transactions else ""))
        if show and name.endswith(show):
            lines += [f"    {count:3} {file}: {function}" for (file, function), count in trace.functions.items()]
    return lines


async def run(database_url: str, redis_url: str, show: str | None) -> list[str]:
    """Open a gateway on these stores and do the walks."""
    servers = {name: MemoryServer() for name in ("demo", "more")}
    servers["demo"].tools["asks"] = asks

    def connect(spec: ServerSpec) -> Upstream:
        return MemoryUpstream(spec.name, servers["demo" if spec.name == "demo" else "more"])

    settings = Settings(master_key=KEY, database_url=database_url, redis_url=redis_url, allow_private_upstreams=True)

    async def resolve(host: str) -> list[Any]:
        from ipaddress import ip_address

        return [ip_address("127.0.0.1")]

    app = Application(settings, connect=connect, resolve=resolve)
    async with app.lifespan():
        return await walks(app, show)


def main() -> None:
    """Run the walks and print what they took."""
    parser = argparse.ArgumentParser(prog="make trace", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--show", help="list the functions of the walk whose name ends so")
    show = parser.parse_args().show
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("gateway.calls").setLevel(logging.INFO)
    logging.getLogger("gateway.calls").propagate = False
    with tempfile.TemporaryDirectory() as folder:
        stores = Stores(Path(folder) / "stores")
        urls = stores.start()
        try:
            print("\n".join(asyncio.run(run(urls.database_url, urls.redis_url, show))))
        finally:
            stores.stop()


main()
