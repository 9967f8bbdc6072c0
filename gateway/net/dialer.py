"""Connections to vetted addresses only: a name is resolved, every answer is judged, and the one judged is connected to.

So what was checked is what is talked to, also when a name server gives another answer the next time.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

from gateway import version
from gateway.errors import AddressRefused
from gateway.model.address_policy import Address, Allowed, literal, refusal
from gateway.net.connections import Dial
from gateway.net.http_client import HttpClient
from gateway.net.resolver import NotResolved, Resolver

_MAX_CONNECTIONS = 256

Resolve = Callable[[str], Awaitable[list[Address]]]


class Vetting:
    """Finds the addresses of a host and refuses the host if any of them is one that a server must not have."""

    def __init__(self, allowed: Allowed, resolve: Resolve | None = None) -> None:
        """`resolve` finds the addresses of a name, instead of a `Resolver`."""
        self._allowed = allowed
        self._resolve = resolve or Resolver().resolve

    def may_reach(self, url: str) -> bool:
        """Tell whether the settings let a server be at this URL, as far as its host says it without a look-up."""
        host = urlsplit(url).hostname or ""
        try:
            address = ip_address("127.0.0.1") if host == "localhost" else literal(host)
        except ValueError:
            return False
        return address is None or refusal(address, allow_private=self._allowed.private(host, address)) is None

    async def addresses(self, host: str) -> list[Address]:
        """All addresses of a host, judged. Raises AddressRefused, or NotResolved."""
        try:
            address = literal(host)
        except ValueError as error:
            raise AddressRefused(host, str(error)) from None
        found = [address] if address is not None else await self._resolve(host.rstrip("."))
        for each in found:
            if reason := refusal(each, allow_private=self._allowed.private(host, each)):
                raise AddressRefused(host, reason)
        return found


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The system's trusted certificates, read once per process: it takes 30 ms and a megabyte."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialer:
    """Makes the HTTP clients of upstreams, one each; all share one TLS context."""

    def __init__(self, vetting: Vetting, *, connect_seconds: float, via: str) -> None:
        self._vetting = vetting
        self._connect_seconds = connect_seconds
        self._via = via
        self._tls = _trusted()

    def client(self, headers: Mapping[str, str], connections: int = _MAX_CONNECTIONS) -> HttpClient:
        """A client that sends these headers with each request, and says where it comes from."""
        own = {
            "user-agent": f"{version.NAME}/{version.VERSION}",
            "accept-encoding": "identity",
            "via": f"1.1 {self._via}",
        }
        sent = own | {name.lower(): value for name, value in headers.items()}
        return HttpClient(self._vetted, sent, connections, self._connect_seconds)

    def local(self, path: str, connections: int) -> HttpClient:
        """A client for a unix socket on this machine."""

        async def dial(protocol: Callable[[], asyncio.Protocol]) -> None:
            await self._connected(asyncio.get_running_loop().create_unix_connection(protocol, path))

        return HttpClient(lambda url: dial, {}, connections, self._connect_seconds)

    def _vetted(self, url: httpx.URL) -> Dial:
        """How the origin of a URL is connected to: at an address that was judged, under the name of the URL in TLS."""
        host, port = url.host, url.port or (443 if url.scheme == "https" else 80)
        tls: dict[str, Any] = {"ssl": self._tls, "server_hostname": host} if url.scheme == "https" else {}

        async def dial(protocol: Callable[[], asyncio.Protocol]) -> None:
            lost: Exception = httpx.ConnectError(f"the name {host!r} has no address")
            for address in await self._addresses(host):
                try:
                    loop = asyncio.get_running_loop()
                    await self._connected(loop.create_connection(protocol, str(address), port, **tls))
                    return
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    lost = error
            raise lost

        return dial

    async def _addresses(self, host: str) -> list[Address]:
        try:
            async with asyncio.timeout(self._connect_seconds):
                return await self._vetting.addresses(host)
        except TimeoutError:
            seconds = f"{self._connect_seconds:g} s"
            raise httpx.ConnectTimeout(f"the name {host!r} was not resolved within {seconds}") from None
        except NotResolved as error:
            raise httpx.ConnectError(error.strerror or str(error)) from error

    async def _connected(self, connecting: Awaitable[object]) -> None:
        """Bound a connect in time, and put httpx's errors in place of the system's."""
        try:
            async with asyncio.timeout(self._connect_seconds):
                await connecting
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no connection within {self._connect_seconds:g} s") from None
        except OSError as error:  # ssl's errors are such too
            raise httpx.ConnectError(str(error)) from error
