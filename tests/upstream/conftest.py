"""The fixtures of tests over the wire."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.wire import Wire


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    wire = Wire()
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    yield wire
    server.close()
