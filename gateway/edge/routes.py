"""THE table of addresses: which handler serves a path, what is spoken there, and who is let in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from gateway.edge import (
    health,
    http_sse,
    keys,
    lists,
    mcp,
    no_oauth,
    openapi,
    registry_documents,
    rest,
    rpc,
    toolsets,
    welcome,
)
from gateway.edge.page import events, files, sign_in
from gateway.edge.request import Protocol

Handler = Callable[..., Awaitable[None]]


class Door(Enum):
    """Who is let in at an address, and what its handler is called with."""

    OPEN = "anybody, whether or not the stores answer: handler(http, settings)"
    READY = "anybody: whether this worker may get requests"
    METRICS = "whoever may read the figures (GATEWAY_METRICS), by any Host: handler(gateway, http)"
    SIGN_IN = "anybody who may sign in to the page: handler(gateway, http)"
    KEY = "whoever has a key: handler(gateway, http, principal, *the path's parameters)"


@dataclass(frozen=True, slots=True)
class Route:
    """What serves an address; `methods` None for any."""

    handler: Handler
    methods: tuple[str, ...] | None
    protocol: Protocol = Protocol.REST
    door: Door = Door.KEY


_GET, _POST = ("GET", "HEAD"), ("POST",)
_MCP = Route(mcp.serve, ("POST", "GET", "DELETE"), Protocol.JSON_RPC)
_REGISTRY = Route(registry_documents.serve, ("GET", "HEAD", "OPTIONS"), Protocol.REGISTRY)
_NO_OAUTH = Route(no_oauth.serve, None, door=Door.OPEN)
_STATIC = Route(files.serve, _GET, door=Door.OPEN)
_QUIET = Route(welcome.quiet, _GET, door=Door.OPEN)

PATHS: dict[str, Route] = {
    "/mcp": _MCP,
    "/sse": Route(http_sse.serve_stream, ("GET",)),
    "/messages": Route(http_sse.serve_message, _POST, Protocol.JSON_RPC),
    "/rpc": Route(rpc.serve, _POST, Protocol.JSON_RPC),
    "/mcp/servers": Route(rest.servers, ("GET", "HEAD", "POST")),
    "/mcp/toolsets": Route(toolsets.toolsets, ("GET", "HEAD", "POST")),
    "/mcp/import": Route(rest.import_servers, _POST),
    "/mcp/openapi/preview": Route(rest.preview_document, _POST),
    "/mcp/export": Route(rest.export_servers, _GET),
    "/mcp/tools": Route(partial(lists.serve, kind="tools"), _GET),
    "/mcp/resources": Route(partial(lists.serve, kind="resources"), _GET),
    "/mcp/prompts": Route(partial(lists.serve, kind="prompts"), _GET),
    "/mcp/tools/call": Route(rest.tools_call, _POST),
    "/mcp/resources/read": Route(rest.resources_read, _POST),
    "/mcp/prompts/get": Route(rest.prompts_get, _POST),
    "/v1/mcp/registry.json": _REGISTRY,
    "/v0.1/servers": _REGISTRY,
    "/keys": Route(keys.keys, ("GET", "HEAD", "POST", "DELETE")),
    "/whoami": Route(keys.whoami, _GET),
    "/audit": Route(keys.audit, _GET),
    "/page/session": Route(sign_in.session, ("GET", "HEAD", "POST", "DELETE"), door=Door.SIGN_IN),
    "/page/events": Route(events.serve, _GET),
    "/openapi.json": Route(openapi.serve, _GET),
    "/healthz": Route(health.healthz, _GET, door=Door.OPEN),
    "/readyz": Route(health.readyz, _GET, door=Door.READY),
    "/metrics": Route(health.metrics, _GET, door=Door.METRICS),
    "/favicon.ico": _QUIET,
    "/robots.txt": _QUIET,
    "/register": _NO_OAUTH,
    "/authorize": _NO_OAUTH,
    "/token": _NO_OAUTH,
}

BELOW_SERVERS: dict[str, Route] = {
    "": Route(rest.server, ("GET", "HEAD", "PUT", "PATCH", "DELETE")),
    "mcp": _MCP,
    "refresh": Route(rest.refresh, _POST),
    "changes": Route(rest.changes, _GET),
    "approve": Route(rest.approve, _POST),
    "digests": Route(rest.digests, ("GET", "HEAD", "POST")),
}
"""What stands below `/mcp/servers/{name}`."""

BELOW_TOOLSETS: dict[str, Route] = {
    "": Route(toolsets.toolset, ("GET", "HEAD", "PUT", "PATCH", "DELETE")),
    "mcp": Route(mcp.serve_toolset, ("POST", "GET", "DELETE"), Protocol.JSON_RPC),
    "rpc": Route(rpc.serve_toolset, _POST, Protocol.JSON_RPC),
    **{name: PATHS[f"/{name}"] for name in ("sse", "messages")},
    **{
        name: PATHS[f"/mcp/{name}"]
        for name in ("tools", "tools/call", "resources", "resources/read", "prompts", "prompts/get")
    },
}
"""What stands below `/mcp/toolsets/{slug}`: the aggregate's addresses, with the slug as a parameter."""

BELOW_KEYS: dict[str, Route] = {
    "": Route(keys.key, ("GET", "HEAD", "PATCH", "DELETE")),
    "rotate": Route(keys.rotate, _POST),
    "access": Route(keys.access, ("GET", "HEAD", "POST")),
}
"""What stands below `/keys/{id}`."""


_BELOW = (("/mcp/servers/", BELOW_SERVERS), ("/mcp/toolsets/", BELOW_TOOLSETS), ("/keys/", BELOW_KEYS))


def match(path: str) -> tuple[Route | None, tuple[str, ...]]:
    """Find what serves a path, and the path's parameters."""
    if (route := PATHS.get(path)) is not None:
        return route, ()
    for prefix, routes in _BELOW:
        if path.startswith(prefix):
            name, _, rest_of_path = path[len(prefix) :].partition("/")
            return routes.get(rest_of_path) if name else None, (name,)
    if path.startswith("/page/"):
        return _STATIC, ()
    if path.startswith("/v0.1/servers/"):
        return _REGISTRY, ()
    return None, ()
