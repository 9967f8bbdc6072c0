"""A streaming ASGI driver: httpx's own ASGITransport collects the whole body before it shows any of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp

from gateway.protocol.sse import ServerSentEvent, SseDecoder

SECONDS = 10.0


@dataclass
class Answer:
    """A response: its head at once, its body as it comes."""

    status: int
    headers: Mapping[str, str]
    _chunks: asyncio.Queue[bytes | None]
    _pending: list[ServerSentEvent] = field(default_factory=list)
    _decoder: SseDecoder = field(default_factory=SseDecoder)
    comments: int = 0
    primings: list[ServerSentEvent] = field(default_factory=list)

    async def chunk(self) -> bytes | None:
        """The next piece of the body, or None at its end."""
        async with asyncio.timeout(SECONDS):
            return await self._chunks.get()

    async def body(self) -> bytes:
        parts = []
        while (part := await self.chunk()) is not None:
            parts.append(part)
        return b"".join(parts)

    async def json(self) -> Any:
        return json.loads(await self.body())

    async def event(self) -> ServerSentEvent | None:
        """The next event that has data, or None at the end of the stream."""
        while not self._pending:
            if not await self._more():
                return None
        return self._pending.pop(0)

    async def prime(self) -> None:
        """Wait for an event that has no data."""
        while not self.primings:
            assert await self._more(), "the stream ended"

    async def _more(self) -> bool:
        chunk = await self.chunk()
        if chunk is None:
            return False
        self.comments += chunk.startswith(b":")
        for event in self._decoder.feed(chunk):
            (self._pending if event.data else self.primings).append(event)
        return True

    async def events(self) -> list[ServerSentEvent]:
        """All events until the end."""
        found = []
        while (event := await self.event()) is not None:
            found.append(event)
        return found


class Client:
    """Calls an ASGI application as a server would; leaving the block of `open` is a hang-up."""

    def __init__(self, app: ASGIApp, key: str | None = None, root_path: str = "") -> None:
        self.app = app
        self._root_path = root_path
        self.headers: dict[str, str] = {"host": "localhost"}
        if key is not None:
            self.headers["authorization"] = f"Bearer {key}"

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        value: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    ) -> AsyncIterator[Answer]:
        sent = list(self.headers.items())
        if value is not None:
            body = json.dumps(value).encode()
            sent.append(("content-type", "application/json"))
        extra = list(headers.items()) if isinstance(headers, Mapping) else headers or []
        replaced = {name.lower() for name, _ in extra}
        sent = [(name, text) for name, text in sent if name not in replaced] + extra
        path, _, query = path.partition("?")
        scope: MutableMapping[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": self._root_path + path, "raw_path": quote(self._root_path + path, safe="/%").encode(),
            "query_string": query.encode(), "root_path": self._root_path,
            "headers": [(name.lower().encode(), text.encode("latin-1")) for name, text in sent],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        gone, head = asyncio.Event(), asyncio.get_running_loop().create_future()
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        requests = [{"type": "http.request", "body": body or b"", "more_body": False}]

        async def receive() -> Any:
            if requests:
                return requests.pop(0)
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                head.set_result(message)
                return
            if message.get("body"):
                chunks.put_nowait(message["body"])
            if not message.get("more_body", False):
                chunks.put_nowait(None)

        async def work() -> None:
            try:
                await self.app(scope, receive, send)
            except BaseException as error:
                if not head.done():
                    head.set_exception(error)
                raise
            finally:
                if not head.done():
                    head.cancel()

        task = asyncio.create_task(work())
        try:
            async with asyncio.timeout(SECONDS):
                start = await head
            names = {name.decode(): text.decode("latin-1") for name, text in start["headers"]}
            yield Answer(start["status"], names, chunks)
        finally:
            gone.set()
            async with asyncio.timeout(SECONDS):
                await asyncio.gather(task, return_exceptions=True)

    async def ask(self, method: str, path: str, **how: Any) -> tuple[int, Mapping[str, str], Any]:
        """Send a request and return status, headers and the body, decoded where it is JSON."""
        async with self.open(method, path, **how) as answer:
            body = await answer.body()
        kind = answer.headers.get("content-type", "")
        return answer.status, answer.headers, json.loads(body) if "json" in kind and body else body
