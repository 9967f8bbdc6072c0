"""Each test runs three times: on hypercorn's own protocol, and on ours, without and with a transport."""

from collections.abc import Iterator
from typing import Any

import hypercorn.config
import pytest
from hypercorn.asyncio.tcp_server import TCPServer

from gateway.run.http1 import install


class _Stream:
    """Stands for the protocol that asyncio's streams have put on a transport."""

    def eof_received(self) -> None: ...

    def connection_lost(self, error: Exception | None) -> None: ...


class _Transport:
    """What a memory reader and writer would have below them."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._stream = self._protocol = _Stream()
        self._queue, self._writer = reader.send, writer
        reader.send = self._send
        self.taken = 0

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol
        self.taken += 1

    async def _send(self, data: bytes) -> None:
        if self._protocol is self._stream:
            await self._queue(data)
        else:
            received: Any = self._protocol
            received.data_received(data)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def is_closing(self) -> bool:
        return bool(self._writer.is_closed)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@pytest.fixture(autouse=True, params=["h11", "httptools", "httptools on a transport"])
def _protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hypercorn.config, "time", lambda: 5000)
    choice = request.param.partition(" ")[0]
    assert install(choice) is (choice == "httptools")
    made: list[_Transport] = []
    if request.param.endswith("transport"):
        plain = TCPServer.__init__

        def with_transport(server: TCPServer, *arguments: Any) -> None:
            plain(server, *arguments)
            reader, writer = arguments[-2:]
            writer.transport = _Transport(reader, writer)
            made.append(writer.transport)

        monkeypatch.setattr(TCPServer, "__init__", with_transport)
    yield
    install("h11")
    speaks_http1 = not any(each in request.node.name for each in ("http2", "on_closed", "initial_keep_alive"))
    assert all(each.taken or not speaks_http1 for each in made), "its transport was never taken over"
