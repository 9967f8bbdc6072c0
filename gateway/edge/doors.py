"""Which Host and Origin headers are let in: a browser's page must not reach a gateway on somebody's machine.

Source: MCP 2025-11-25, transports, security warning (DNS rebinding).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.errors import Forbidden
from gateway.settings import Settings

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Doors:
    """The names that are let in, in lower case; `hosts` None for any."""

    hosts: frozenset[str] | None
    origins: frozenset[str]

    @classmethod
    def of(cls, settings: Settings) -> Doors:
        hosts = {name.lower() for name in settings.allowed_hosts}
        origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}
        if settings.public_url:
            parts = urlsplit(settings.public_url)
            hosts.add((parts.hostname or "").lower())
            origins.add(f"{parts.scheme}://{parts.netloc}".lower())
        anybody = "*" in hosts or settings.lets_any_host_in
        return cls(None if anybody else frozenset(hosts | _LOOPBACK | {settings.host.lower()}), frozenset(origins))

    def check_host(self, host: str | None) -> None:
        """Refuse a Host that is none, or not ours. Raises Forbidden (MCP: 421 or 403)."""
        if host is not None and not _HOST.fullmatch(host):
            raise Forbidden(f"The Host header {host[:100]!r} is malformed.")
        if self.hosts is not None and host is not None and _name(host) not in self.hosts:
            raise Forbidden(
                f"The host {host[:100]!r} is not one of this gateway's; add it to GATEWAY_ALLOWED_HOSTS "
                "or set GATEWAY_PUBLIC_URL."
            )

    def check_origin(self, origin: str | None, host: str | None = None) -> None:
        """Refuse pages of other origins than the vetted Host's own. Raises Forbidden."""
        if origin is None or origin.lower().rstrip("/") in self.origins:
            return
        if host is not None and self.hosts is not None and origin.lower() in _origins_of(host):
            return
        try:
            name = urlsplit(origin).hostname
        except ValueError:
            name = None
        if (name or "").lower() not in _LOOPBACK:
            raise Forbidden(f"Pages of {origin[:100]!r} are not let in; add it to GATEWAY_ALLOWED_ORIGINS.")


def _origins_of(host: str) -> tuple[str, str]:
    return f"https://{host}".lower(), f"http://{host}".lower()


def _name(host: str) -> str:
    """The host without its port, in lower case and without a trailing dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().removesuffix(".")
