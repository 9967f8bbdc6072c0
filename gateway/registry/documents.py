"""The documents of OpenAPI servers: where they come from, and what they offer.

A document was sent with the registration and is stored beside it, or it is fetched from its URL at each look, through
the same vetted connections as calls. It is compiled only if it is another one than at the last look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from gateway.errors import UpstreamProtocolError, UpstreamTimeout
from gateway.model.api_document import MAX_BYTES
from gateway.model.redaction import redact_url
from gateway.model.server import Offers, ServerSpec, origin
from gateway.net.dialer import Dialer
from gateway.openapi.job import BadDocument, Compiled, Job
from gateway.openapi.runner import CompilerRunner, key_of
from gateway.registry.servers import ServerTable
from gateway.upstream.openapi import VERSION
from gateway.upstream.wire import foreign

_ACCEPT = {"accept": "application/json, application/yaml;q=0.9, */*;q=0.5"}
_FETCH_SECONDS = 15.0


class Documents:
    """Reads the documents of servers, and has them compiled."""

    def __init__(self, servers: ServerTable, dialer: Dialer, resolve: Callable[[ServerSpec], ServerSpec]) -> None:
        """`resolve` puts the secrets in that a server's headers refer to."""
        self._servers = servers
        self._dialer = dialer
        self._resolve = resolve
        self._runner = CompilerRunner()

    async def compiled(self, spec: ServerSpec) -> Compiled:
        """What a server's document gives. Raises BadDocument, UpstreamError or StoreUnavailable."""
        return await self._runner.compile(await self._data(spec), _job(spec))

    async def offers(self, spec: ServerSpec, known: Offers) -> Offers:
        """What a server offers; the very same object where its document is the one that `known` comes from.

        Raises UpstreamError or StoreUnavailable.
        """
        data, job = await self._data(spec), _job(spec)
        key = key_of(data, job)
        if known.document.get("key") == key:
            return known
        try:
            compiled = await self._runner.compile(data, job)
        except BadDocument as error:
            raise UpstreamProtocolError(spec.name, str(error)) from None
        return _offers(compiled, key)

    async def _data(self, spec: ServerSpec) -> bytes:
        """The document itself. Raises UpstreamError or StoreUnavailable."""
        if spec.spec is not None:
            if spec.spec.data is not None:
                return spec.spec.data
            stored = await self._servers.document(spec.name)
            if stored is None:
                raise UpstreamProtocolError(spec.name, f"The document of server {spec.name!r} is not stored any more.")
            return stored
        return await self._fetched(self._resolve(spec))

    async def _fetched(self, spec: ServerSpec) -> bytes:
        """The document at a server's `spec_url`; its headers go along only where the API itself is."""
        url = spec.spec_url or ""
        client = self._dialer.client(spec.headers if spec.url and origin(spec.url) == origin(url) else {}, 1)
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                with foreign(spec.name):
                    response = await client.send("GET", url, _ACCEPT)
                    try:
                        data = await response.read(MAX_BYTES)
                    finally:
                        response.close()
        except TimeoutError:
            raise UpstreamTimeout(
                spec.name, f"The document of server {spec.name!r} did not arrive within {_FETCH_SECONDS:g} s."
            ) from None
        finally:
            client.close()
        if response.status != 200:
            raise UpstreamProtocolError(spec.name, _not_there(spec, response.status, response.header(b"location")))
        if data is None:
            raise UpstreamProtocolError(
                spec.name, f"The document of server {spec.name!r} has more than {MAX_BYTES >> 20} MiB."
            )
        return data


def _not_there(spec: ServerSpec, status: int, location: str) -> str:
    said = f"The document of server {spec.name!r} is not at its `spec_url`: HTTP {status}"
    if 300 <= status < 400 and location:
        return f"{said} to {redact_url(location)[:300]}; redirects are not followed."
    return f"{said}."


def _job(spec: ServerSpec) -> Job:
    headers = tuple(sorted(name.lower() for name in spec.headers))
    return Job(spec.include, spec.exclude, spec.url or None, spec.spec_url, headers)


def _offers(compiled: Compiled, key: str) -> Offers:
    document: Mapping[str, Any] = {
        "key": key,
        "title": compiled.title,
        "version": compiled.version,
        "openapi": compiled.format,
        "left_out": compiled.left_out,
        "excluded": len(compiled.excluded),
        "warnings": compiled.warnings,
    }
    return Offers(
        version=VERSION,
        capabilities={"tools": {}},
        server_info={"name": compiled.title, "version": compiled.version},
        instructions=compiled.description or None,
        tools=tuple(compiled.tools),
        plans=compiled.plans,
        document=document,
    )
