"""Addresses of servers vetted before they are stored, so that who registers one hears at once what is wrong with it."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from gateway.methods.call import Call
from gateway.net.resolver import NotResolved

_SECONDS = 2.0


async def vet(call: Call, *urls: str | None) -> None:
    """Refuse a URL whose host has an address that a server must not have; an unknown name may come to be known."""
    for url in urls:
        host = urlsplit(url).hostname if url else None
        if host is not None:
            try:
                async with asyncio.timeout(_SECONDS):
                    await call.gateway.vetting.addresses(host)
            except (NotResolved, TimeoutError):
                pass
