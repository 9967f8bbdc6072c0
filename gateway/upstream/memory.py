"""The in-memory twin of an upstream: the same contract without a wire, for tests.

A `MemoryServer` is what it talks to; it may be taken down, brought up and changed while a gateway runs.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import UpstreamUnreachable
from gateway.protocol import versions
from gateway.protocol.exchange import Handshake, Hello
from gateway.protocol.messages import Failure, Message, Notification, Reply, Request
from gateway.tasks import end
from gateway.upstream.contract import Heard, MessageStream, SessionExpired, UpstreamSession

Emit = Callable[[Message], Awaitable[None]]
Tool = Callable[[Request, Emit], Awaitable[Any]]


async def _echo(request: Request, emit: Emit) -> Any:
    return {"content": [{"type": "text", "text": repr(request.params.get("arguments"))}]}


@dataclass
class MemoryServer:
    """A server's tools and lists; `tools` maps a name to what it does with a request."""

    tools: dict[str, Tool] = field(default_factory=lambda: {"echo": _echo})
    prompts: list[dict[str, Any]] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    templates: list[dict[str, Any]] = field(default_factory=list)
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What else it tells of its tools: descriptions, annotations."""
    down: str | None = None
    instructions: str | None = None
    page_size: int = 1000
    requests: list[Request] = field(default_factory=list)
    posted: list[Message] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)
    hellos: list[Hello] = field(default_factory=list)
    streams: dict[str, asyncio.Queue[Message]] = field(default_factory=dict)
    capabilities: dict[str, Any] = field(
        default_factory=lambda: {
            "tools": {"listChanged": True},
            "resources": {"subscribe": True},
            "prompts": {},
            "logging": {},
        }
    )
    opened: int = 0

    def say(self, message: Message) -> None:
        """Say something by itself, to every session that listens."""
        for stream in self.streams.values():
            stream.put_nowait(message)

    def forget_sessions(self) -> None:
        """Behave as after a restart."""
        self.sessions.clear()

    async def answer(self, request: Request, emit: Emit) -> Reply | Failure:
        """Carry out one request."""
        self.requests.append(request)
        plain = {"type": "object"}
        tools = [
            {"name": name, "inputSchema": self.schemas.get(name, plain), **self.told.get(name, {})}
            for name in self.tools
        ]
        lists: dict[str, tuple[str, list[dict[str, Any]]]] = {
            "tools/list": ("tools", tools),
            "prompts/list": ("prompts", self.prompts),
            "resources/list": ("resources", self.resources),
            "resources/templates/list": ("resourceTemplates", self.templates),
        }
        if request.method in lists:
            return Reply(request.id, self._page(request, *lists[request.method]))
        if request.method == "tools/call":
            tool = self.tools.get(request.params["name"])
            if tool is None:
                return Failure(request.id, -32602, f"Unknown tool: {request.params['name']}")
            return Reply(request.id, await tool(request, emit))
        return Reply(request.id, {"echo": request.method, "params": dict(request.params)})

    def _page(self, request: Request, key: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        start = int(request.params.get("cursor") or 0)
        end = start + self.page_size
        page: dict[str, Any] = {key: items[start:end]}
        return page | {"nextCursor": str(end)} if end < len(items) else page


class MemoryUpstream:
    """Talks to a MemoryServer as `StreamableHttpUpstream` does to one behind a URL."""

    def __init__(self, name: str, server: MemoryServer) -> None:
        self._name = name
        self._server = server
        self._numbers = itertools.count(1)
        self._number = id(self)

    async def open(self, hello: Hello) -> UpstreamSession:
        self._check()
        self._server.opened += 1
        self._server.hellos.append(hello)
        id = f"{self._name}-{self._number}-{next(self._numbers)}"
        self._server.sessions.add(id)
        info = {"name": self._name, "version": "1.0.0"}
        server = self._server
        shake = Handshake(versions.negotiate(hello.version), server.capabilities, info, server.instructions)
        return UpstreamSession(shake, id)

    async def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        self._check()
        id = session.session_id or ""
        if id not in self._server.sessions:
            raise SessionExpired
        stream = self._server.streams[id] = asyncio.Queue()
        try:
            while True:
                yield Heard(await stream.get(), None)
        finally:
            del self._server.streams[id]

    async def call(self, session: UpstreamSession, request: Request) -> Reply | Failure | MessageStream:
        self._check()
        if session.session_id not in self._server.sessions:
            raise SessionExpired
        said: asyncio.Queue[Message] = asyncio.Queue()
        work = asyncio.create_task(self._work(request, said))
        try:
            first = await said.get()
        except BaseException:
            await end([work])
            raise
        return first if isinstance(first, Reply | Failure) else self._stream(first, said, work)

    async def _stream(self, first: Message, said: asyncio.Queue[Message], work: asyncio.Task[None]) -> MessageStream:
        try:
            yield first
            while True:
                message = await said.get()
                yield message
                if isinstance(message, Reply | Failure):
                    return
        finally:
            await end([work])

    async def _work(self, request: Request, said: asyncio.Queue[Message]) -> None:
        await said.put(await self._server.answer(request, said.put))

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        self._server.posted.append(message)

    async def end(self, session: UpstreamSession) -> None:
        self._server.sessions.discard(session.session_id or "")

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _check(self) -> None:
        if self._server.down is not None:
            raise UpstreamUnreachable(self._name, self._server.down)
