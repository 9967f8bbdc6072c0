"""A closed-loop load generator: some connections, each sends its next call when the last one is answered."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import Any

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass
class Load:
    """What one round saw; latencies in seconds."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


class _Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, load: Load, until: float, done: asyncio.Future[None]) -> None:
        self._request = request
        self._load = load
        self._until = until
        self._done = done
        self._buffer = bytearray()
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's are no asyncio.Transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end + 4)
        if length is None:
            self._done.set_exception(RuntimeError(f"an answer without length: {bytes(self._buffer[:300])!r}"))
            self._transport.close()
            return
        if len(self._buffer) < end + 4 + int(length[1]):
            return
        now = time.perf_counter()
        if self._buffer.startswith(b"HTTP/1.1 200") and b'"result"' in self._buffer:
            self._load.latencies.append(now - self._sent)
        else:
            self._load.failed += 1
        self._buffer.clear()
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)


async def run(port: int, request: bytes, *, connections: int, seconds: float) -> Load:
    """Send a prepared request over and over for some seconds."""
    loop = asyncio.get_running_loop()
    load, began = Load(), time.perf_counter()
    ends = [loop.create_future() for _ in range(connections)]
    for done in ends:
        await loop.create_connection(lambda done=done: _Caller(request, load, began + seconds, done), "127.0.0.1", port)
    await asyncio.wait_for(asyncio.gather(*ends), seconds + 30)
    load.seconds = time.perf_counter() - began
    return load
