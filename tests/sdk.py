"""The official Python client, told to be of a revision, and what it was told and asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import mcp_types as types
from anyio import BrokenResourceError
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import FileUrl


class Talk:
    """One client and what it was told and asked meanwhile."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.logs: list[Any] = []
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def sample(self, context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        self.asked.append(params.model_dump(mode="json", by_alias=True, exclude={"meta"}))
        return types.CreateMessageResult(role="assistant", content=types.TextContent(type="text", text="hi"), model="m")

    async def elicit(self, context: Any, params: Any) -> types.ElicitResult:
        self.asked.append(params.model_dump(mode="json", by_alias=True, exclude={"meta"}))
        return types.ElicitResult(action="accept", content={"response": "Ada"})

    async def roots(self, context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///home"), name="home")])

    async def log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logs.append([params.level, params.data])

    async def hear(self, message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            self.told.put_nowait(str(message.params.uri))


@asynccontextmanager
async def connect(url: str, version: str, talk: Talk, key: str | None = None) -> AsyncIterator[ClientSession]:
    """The official client. An event that arrives at `/sse` while it closes fails in the SDK's own reader
    (BrokenResourceError): that is no failure of the gateway.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    closing = False
    try:
        async with AsyncExitStack() as parts:
            if url.partition("?")[0].endswith("/sse"):
                read, write = await parts.enter_async_context(sse_client(url, headers=headers))
            else:
                http = await parts.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=30))
                read, write = await parts.enter_async_context(streamable_http_client(url, http_client=http))
            session = ClientSession(
                read, write, 30, talk.sample, talk.elicit, talk.roots, talk.log, talk.hear
            )  # fmt: skip
            await parts.enter_async_context(session)
            await session.initialize()
            yield session
            closing = True
    except* BrokenResourceError:
        if not closing:
            raise
