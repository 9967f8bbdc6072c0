"""The registry document and the official registry's paths, on the servers and toolsets that are here.

Source: the registry's OpenAPI document and server.schema.json of 2025-12-11.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gateway import version
from gateway.edge.request import Http
from gateway.edge.response import send_json
from gateway.errors import InvalidParams, NotFound
from gateway.methods.services import Gateway
from gateway.model.principals import Principal
from gateway.model.server import Server
from gateway.model.toolsets import Toolset

CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, OPTIONS"),
    (b"access-control-allow-headers", b"Authorization, Content-Type"),
)
_SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
_OFFICIAL = "io.modelcontextprotocol.registry/official"
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,99}")
_GATEWAY_ALIAS = "gateway"
_MAX_PAGE = 100

Entry = dict[str, Any]


async def serve(gateway: Gateway, http: Http, principal: Principal) -> None:
    """The registry document, and the official registry's paths on the same servers.

    Raises NotFound or InvalidParams.
    """
    entries, path = _entries(gateway, http, principal), http.path
    if path == "/v1/mcp/registry.json":
        found: Any = _listed(entries, None)
    elif path == "/v0.1/servers":
        found = _page(entries, http.query.decode("latin-1"))
    else:
        found = _versions(entries, path.removeprefix("/v0.1/servers/"))
    await send_json(http, found, headers=CORS)


def _page(entries: list[Entry], query: str) -> dict[str, Any]:
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    limit = asked.get("limit", "30")
    if not re.fullmatch("[0-9]{1,3}", limit) or not 1 <= int(limit) <= _MAX_PAGE:
        raise InvalidParams(f"'limit' must be a number from 1 to {_MAX_PAGE}.", "limit")
    found = [entry for entry in entries if asked.get("search", "").lower() in entry["server"]["name"].lower()]
    names = [entry["server"]["name"] for entry in found]
    start = 0
    if cursor := asked.get("cursor"):
        if cursor not in names:
            raise InvalidParams("This cursor was not given out here; begin again without one.", "cursor")
        start = names.index(cursor) + 1
    page = found[start : start + int(limit)]
    more = start + len(page) < len(found)
    return _listed(page, page[-1]["server"]["name"] if more else None)


def _listed(entries: list[Entry], cursor: str | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"count": len(entries)}
    return {"servers": entries, "metadata": metadata if cursor is None else metadata | {"nextCursor": cursor}}


def _versions(entries: list[Entry], rest: str) -> dict[str, Any]:
    """`{name}/versions` or `{name}/versions/{version|latest}`; the name holds one slash, encoded or not."""
    name, found, wanted = rest.partition("/versions")
    entry = next((each for each in entries if each["server"]["name"] == unquote(name)), None)
    if not found or entry is None:
        raise NotFound(f"There is no server {unquote(name)!r} in this registry. GET /v0.1/servers lists them.")
    match wanted.removeprefix("/"):
        case "":
            return _listed([entry], None)
        case "latest":
            return entry
        case text if unquote(text) == entry["server"]["version"]:
            return entry
    raise NotFound(f"Server {unquote(name)!r} has the version {entry['server']['version']} only.")


def _entries(gateway: Gateway, http: Http, principal: Principal) -> list[Entry]:
    base = http.base_url(gateway.settings.public_url)
    space = _namespace(base)
    view = gateway.sync.catalogue.view(principal.grants)
    servers = [server for server in view.known() if server.spec.enabled]
    newest = max((server.updated_at for server in servers), default=None)
    oldest = min((server.created_at for server in servers), default=None)
    alias = _GATEWAY_ALIAS
    while alias in view.parts:
        alias = f"mcp-{alias}"
    own = {
        "name": f"{space}/{alias}",
        "title": "MCP gateway",
        "description": "All servers of this gateway at one address",
        "version": version.VERSION,
    }
    named = {server.name for server in servers} | {alias}
    return [
        _entry(own, f"{base}/mcp", oldest, newest),
        *(
            _entry(
                _described(space, server),
                f"{base}/mcp/servers/{server.name}/mcp",
                server.created_at,
                server.updated_at,
            )
            for server in servers
        ),
        *(
            _entry(
                _described_toolset(space, toolset, named),
                f"{base}/mcp/toolsets/{toolset.slug}/mcp",
                toolset.created_at,
                toolset.updated_at,
            )
            for toolset in view.toolsets()
            if toolset.spec.enabled
        ),
    ]


def _described(space: str, server: Server) -> dict[str, Any]:
    said = server.offers.server_info.get("version")
    return {
        "name": f"{space}/{server.name}",
        "title": server.spec.title or server.name,
        "description": _short(server.spec.description or server.spec.title or server.name),
        "version": said if isinstance(said, str) and _VERSION.fullmatch(said) else "1.0.0",
    }


def _described_toolset(space: str, toolset: Toolset, taken: Collection[str]) -> dict[str, Any]:
    name = f"toolset-{toolset.slug}"
    while name in taken:
        name = f"mcp-{name}"
    return {
        "name": f"{space}/{name}",
        "title": toolset.spec.title or toolset.slug,
        "description": _short(toolset.spec.description or toolset.spec.title or toolset.slug),
        "version": f"1.0.{toolset.revision}",
    }


def _short(description: str) -> str:
    return description if len(description) <= 100 else description[:99] + "…"


def _entry(server: Mapping[str, Any], url: str, published: datetime | None, updated: datetime | None) -> Entry:
    official: dict[str, Any] = {"status": "active", "isLatest": True}
    if published is not None:
        official |= {"publishedAt": published, "updatedAt": updated}
    return {
        "server": {
            "$schema": _SCHEMA,
            **server,
            "remotes": [
                {
                    "type": "streamable-http",
                    "url": url,
                    "headers": [{"name": "Authorization", "isRequired": True, "isSecret": True}],
                }
            ],
        },
        "_meta": {_OFFICIAL: official},
    }


def _namespace(base: str) -> str:
    """The base's host in reverse, as registry names begin; an address is `local`."""
    host = urlsplit(base).hostname or "localhost"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return re.sub(r"[^a-zA-Z0-9.-]", "-", ".".join(reversed(host.rstrip(".").split("."))))
    return "local"
