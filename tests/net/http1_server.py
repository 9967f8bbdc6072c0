"""A server that does what a test says with each connection, and a client's connections to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gateway.net.connections import Connections

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def connections_to(
    handler: Handler, *, limit: int = 8, keepalive_seconds: float = 4.0, wait_seconds: float = 5.0
) -> AsyncIterator[Connections]:
    """The connections to a server with this handler; the test has ten seconds."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def dial(protocol: Callable[[], asyncio.Protocol]) -> None:
        await asyncio.get_running_loop().create_connection(protocol, "127.0.0.1", port)

    connections = Connections(dial, limit=limit, keepalive_seconds=keepalive_seconds, wait_seconds=wait_seconds)
    try:
        async with asyncio.timeout(10):
            yield connections
    finally:
        connections.close()
        server.close()


def answering(*answers: bytes) -> Handler:
    """A handler that answers one request after the other with these bytes, the last one for ever."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()

    return handle
