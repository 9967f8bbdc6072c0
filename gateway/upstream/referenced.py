"""A server whose headers or variables refer to secrets: they are read where it is used, and again after a while."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

from gateway.model.server import ServerSpec
from gateway.protocol.exchange import Hello
from gateway.protocol.messages import Failure, Notification, Reply, Request
from gateway.upstream.contract import Heard, MessageStream, Upstream, UpstreamSession

_LOOK_SECONDS = 1.0
_FORMER = 2  # ways with former secrets, which carry calls to their end

Resolve = Callable[[ServerSpec], ServerSpec]


class ReferencedUpstream:
    """The way to a server, made anew when a secret is another one."""

    def __init__(self, spec: ServerSpec, resolve: Resolve, connect: Callable[[ServerSpec], Upstream]) -> None:
        """`resolve` puts the secrets in. It raises UpstreamUnreachable where one is missing."""
        self._spec = spec
        self._resolve = resolve
        self._connect = connect
        self._resolved: ServerSpec | None = None
        self._ways: deque[Upstream] = deque()
        self._look_at = 0.0

    async def _way(self) -> Upstream:
        if not self._ways or time.monotonic() >= self._look_at:
            resolved = self._resolve(self._spec)
            self._look_at = time.monotonic() + _LOOK_SECONDS
            if resolved != self._resolved:
                self._resolved = resolved
                self._ways.append(self._connect(resolved))
                if len(self._ways) > _FORMER + 1:
                    await self._ways.popleft().close()
        return self._ways[-1]

    async def open(self, hello: Hello) -> UpstreamSession:
        return await (await self._way()).open(hello)

    def call(self, session: UpstreamSession, request: Request) -> Awaitable[Reply | Failure | MessageStream]:
        return self._call(session, request)

    async def _call(self, session: UpstreamSession, request: Request) -> Reply | Failure | MessageStream:
        return await (await self._way()).call(session, request)

    async def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        heard = (await self._way()).listen(session, after)
        try:
            async for each in heard:
                yield each
        finally:
            await heard.aclose()

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        await (await self._way()).post(session, message)

    async def end(self, session: UpstreamSession) -> None:
        if self._ways:
            await self._ways[-1].end(session)

    async def close(self) -> None:
        while self._ways:
            await self._ways.pop().close()
