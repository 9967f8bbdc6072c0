"""Connections to vetted addresses only: a name is resolved, every answer is judged, and the one judged is connected to.

So what was checked is what is talked to, also when a name server gives another answer the next time.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from gateway import version
from gateway.errors import AddressRefused
from gateway.model.address_policy import Address, Allowed, literal, refusal

# Below the 5 s after which uvicorn and Node close an idle connection: a request never meets a closing one.
_KEEPALIVE_SECONDS = 4.0
_MAX_CONNECTIONS = 256

Resolve = Callable[[str], Awaitable[list[Address]]]


class NotResolved(OSError):
    """The name server knows no address for a name, now."""


async def resolve(host: str) -> list[Address]:
    """Ask the system for all addresses of a name. Raises NotResolved."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotResolved(0, f"the name {host!r} is not known") from error
    return list(dict.fromkeys(ip_address(str(address[0]).partition("%")[0]) for *_, address in found))


class Vetting:
    """Finds the addresses of a host and refuses the host if any of them is one that a server must not have."""

    def __init__(self, allowed: Allowed, resolve: Resolve = resolve) -> None:
        self._allowed = allowed
        self._resolve = resolve

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


class _Backend(httpcore.AsyncNetworkBackend):
    """httpcore's network, with vetting at each connect; TLS still checks the name of the URL."""

    def __init__(self, vetting: Vetting) -> None:
        self._vetting = vetting
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._vetting.addresses(host)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"the name {host!r} was not resolved within {timeout:g} s") from None
        except NotResolved as error:
            raise httpcore.ConnectError(error.strerror) from error
        lost: Exception = httpcore.ConnectError(f"the name {host!r} has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                lost = error
        raise lost

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The system's trusted certificates, read once per process: it takes 30 ms and a megabyte."""
    return ssl.create_default_context()


class Dialer:
    """Makes the HTTP clients of upstreams: one each, pooled, kept alive; all share one TLS context."""

    def __init__(self, vetting: Vetting, *, connect_seconds: float, via: str) -> None:
        self._vetting = vetting
        self._connect_seconds = connect_seconds
        self._via = via
        self._tls = _trusted()

    def client(self, headers: Mapping[str, str], connections: int = _MAX_CONNECTIONS) -> httpx.AsyncClient:
        """A client that sends these headers with each request, and says where it comes from."""
        own = {
            "user-agent": f"{version.NAME}/{version.VERSION}",
            "accept-encoding": "identity",
            "via": f"1.1 {self._via}",
        }
        sent = httpx.Headers(own)
        sent.update({name.encode(): value.encode("latin-1") for name, value in headers.items()})
        limits = httpx.Limits(
            max_connections=connections, max_keepalive_connections=64, keepalive_expiry=_KEEPALIVE_SECONDS
        )
        client = httpx.AsyncClient(
            headers=sent,
            timeout=httpx.Timeout(None, connect=self._connect_seconds, pool=self._connect_seconds),
            transport=_transport(self._vetting, self._tls, limits),
            follow_redirects=False,
            trust_env=False,
        )
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # callers share it: it keeps nothing
        return client

    def local(self, path: str, connections: int) -> httpx.AsyncClient:
        """A client for a unix socket on this machine."""
        limits = httpx.Limits(
            max_connections=connections, max_keepalive_connections=64, keepalive_expiry=_KEEPALIVE_SECONDS
        )
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=path, limits=limits, trust_env=False),
            timeout=httpx.Timeout(None, connect=self._connect_seconds, pool=self._connect_seconds),
            trust_env=False,
        )


def _transport(vetting: Vetting, tls: ssl.SSLContext, limits: httpx.Limits) -> httpx.AsyncHTTPTransport:
    """httpx's own transport, over connections to vetted addresses."""
    made = httpx.AsyncHTTPTransport(verify=tls, limits=limits, trust_env=False)
    made._pool = httpcore.AsyncConnectionPool(  # httpx has no argument for it
        ssl_context=tls,
        max_connections=limits.max_connections,
        max_keepalive_connections=limits.max_keepalive_connections,
        keepalive_expiry=limits.keepalive_expiry,
        network_backend=_Backend(vetting),
    )
    return made
