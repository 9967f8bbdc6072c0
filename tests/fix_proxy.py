"""A TCP proxy between two parties, that can cut and stall."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

Start = Callable[[str], Awaitable["Proxy"]]


class Proxy:
    """Forwards one loopback port to a TCP port or a Unix socket."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Drop every connection, now and until `restore`."""
        self._refusing = True
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def lead_to(self, target: str) -> None:
        """Connections to come lead elsewhere."""
        self._target = target

    def stall(self) -> None:
        """Keep connections open and let nothing through, until `restore`."""
        self._flowing.clear()

    def restore(self) -> None:
        self._refusing = False
        self._flowing.set()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        far: asyncio.StreamWriter | None = None
        try:
            if self._refusing:
                return
            if self._target.startswith("/"):
                back, far = await asyncio.open_unix_connection(self._target)
            else:
                back, far = await asyncio.open_connection("127.0.0.1", int(self._target))
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far))
                both.create_task(self._pump(back, writer))
        except (OSError, asyncio.CancelledError, ExceptionGroup):
            pass  # either side left, or we cut
        finally:
            writer.transport.abort()
            if far is not None:
                far.transport.abort()
            self._links.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@pytest.fixture
async def proxy() -> AsyncIterator[Start]:
    """Start a proxy to a port, or to the path of a Unix socket."""
    started = []

    async def start(target: str) -> Proxy:
        one = Proxy(target)
        await one.start()
        started.append(one)
        return one

    yield start
    for one in started:
        await one.stop()
