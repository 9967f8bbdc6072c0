"""THE table of addresses: which handler serves a path, what is spoken there, and who is let in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from gateway.edge import health, http_sse, lists, mcp, no_oauth, openapi, registry_documents, rest, rpc, welcome
from gateway.edge.request import Protocol

Handler = Callable[..., Awaitable[None]]


class Door(Enum):
    """Who is let in at an address, and what its handler is called with."""

    OPEN = "anybody, whether or not the stores answer: handler(http, settings)"
    READY = "anybody: whether this worker may get requests"
    METRICS = "whoever may read the figures (GATEWAY_METRICS), by any Host: handler(gateway, http)"
    KEY = "whoever has a key: handler(gateway, http, principal, *the path's parameters)"


@dataclass(frozen=True, slots=True)
class Route:
    """What serves an address."""

    handler: Handler
    protocol: Protocol = Protocol.REST
    door: Door = Door.KEY


_MCP = Route(mcp.serve, Protocol.JSON_RPC)
_REGISTRY = Route(registry_documents.serve, Protocol.REGISTRY)
_NO_OAUTH = Route(no_oauth.serve, door=Door.OPEN)
_QUIET = Route(welcome.quiet, door=Door.OPEN)

PATHS: dict[str, Route] = {
    "/mcp": _MCP,
    "/sse": Route(http_sse.serve_stream),
    "/messages": Route(http_sse.serve_message, Protocol.JSON_RPC),
    "/rpc": Route(rpc.serve, Protocol.JSON_RPC),
    "/mcp/servers": Route(rest.servers),
    "/mcp/tools": Route(partial(lists.serve, kind="tools")),
    "/mcp/resources": Route(partial(lists.serve, kind="resources")),
    "/mcp/prompts": Route(partial(lists.serve, kind="prompts")),
    "/mcp/tools/call": Route(rest.tools_call),
    "/mcp/resources/read": Route(rest.resources_read),
    "/mcp/prompts/get": Route(rest.prompts_get),
    "/v1/mcp/registry.json": _REGISTRY,
    "/v0.1/servers": _REGISTRY,
    "/openapi.json": Route(openapi.serve),
    "/healthz": Route(health.healthz, door=Door.OPEN),
    "/readyz": Route(health.readyz, door=Door.READY),
    "/metrics": Route(health.metrics, door=Door.METRICS),
    "/favicon.ico": _QUIET,
    "/robots.txt": _QUIET,
    "/register": _NO_OAUTH,
    "/authorize": _NO_OAUTH,
    "/token": _NO_OAUTH,
}

BELOW_SERVERS: dict[str, Route] = {
    "": Route(rest.server),
    "mcp": _MCP,
    "refresh": Route(rest.refresh),
}
"""What stands below `/mcp/servers/{name}`."""


def match(path: str) -> tuple[Route | None, tuple[str, ...]]:
    """Find what serves a path, and the path's parameters."""
    if (route := PATHS.get(path)) is not None:
        return route, ()
    if path.startswith("/mcp/servers/"):
        name, _, rest_of_path = path[len("/mcp/servers/") :].partition("/")
        return BELOW_SERVERS.get(rest_of_path) if name else None, (name,)
    if path.startswith("/v0.1/servers/"):
        return _REGISTRY, ()
    return None, ()
