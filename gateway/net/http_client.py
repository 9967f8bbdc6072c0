"""The HTTP client of one upstream: its kept connections by origin, and requests whose heads are made once.

Knows HTTP and URLs; how an origin is connected to is the dialer's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import httpx

from gateway.net.connections import Connections, Dial
from gateway.net.http1_client import Response

# Below the 5 s after which uvicorn and Node close an idle connection: a request never meets a closing one.
_KEEPALIVE_SECONDS = 4.0
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests of one kind go, and the head that they have in common: all but the last headers."""

    connections: Connections
    head: bytes

    def send(self, body: bytes | None = None, headers: bytes = b"") -> Awaitable[Response]:
        """Send a request, `headers` being whole lines; the head of the answer is there, its body is to be read.

        Raises httpx.TransportError or AddressRefused.
        """
        if body is None:
            return self.connections.send(b"%b%b\r\n" % (self.head, headers))
        return self.connections.send(b"%b%bcontent-length: %d\r\n\r\n%b" % (self.head, headers, len(body), body))


class HttpClient:
    """The connections to one upstream, and the headers that every request to it carries."""

    def __init__(
        self, dial: Callable[[httpx.URL], Dial], headers: Mapping[str, str], limit: int, wait_seconds: float
    ) -> None:
        """`dial` says how a URL's origin is connected to; `limit` is the most connections to one, for which who
        comes then waits `wait_seconds`. The names of headers are in lower case."""
        self._dial = dial
        self._headers = headers
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._origins: dict[tuple[str, bytes, int | None], Connections] = {}
        self.is_closed = False

    def endpoint(self, method: str, url: str, headers: Mapping[str, str] = _NO_HEADERS) -> Endpoint:
        """Where requests of a kind go. Raises httpx.InvalidURL, httpx.UnsupportedProtocol or UnicodeError."""
        where = httpx.URL(url)
        sent = {"host": where.netloc.decode("ascii"), **self._headers, **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        if lines.count("\n") != len(sent) or lines.count("\r") != len(sent) or "\0" in lines:
            raise httpx.UnsupportedProtocol("a header holds a line break")
        head = f"{method} {where.raw_path.decode('ascii')} HTTP/1.1\r\n{lines}"
        return Endpoint(self.connections(where), head.encode("latin-1"))

    async def send(
        self, method: str, url: str, headers: Mapping[str, str] = _NO_HEADERS, body: bytes | None = None
    ) -> Response:
        """Send one request; as `Endpoint.send`."""
        return await self.endpoint(method, url, headers).send(body)

    def connections(self, url: httpx.URL) -> Connections:
        """The connections to a URL's origin. Raises httpx.UnsupportedProtocol."""
        if url.scheme not in ("http", "https") or not url.host:
            raise httpx.UnsupportedProtocol(f"{url.scheme!r} is no scheme that can be connected to")
        origin = url.scheme, url.raw_host, url.port
        found = self._origins.get(origin)
        if found is None:
            found = self._origins[origin] = Connections(
                self._dial(url),
                limit=self._limit,
                keepalive_seconds=_KEEPALIVE_SECONDS,
                wait_seconds=self._wait_seconds,
            )
            if self.is_closed:
                found.close()
        return found

    def close(self) -> None:
        """Let go of every connection; what is sent from now on fails as not connected."""
        self.is_closed = True
        for each in self._origins.values():
            each.close()
