"""The ways to a tool that are measured side by side: direct, an nginx hop, a bare server, the gateway as it is run.

Each way has one core to itself; the load generator and the upstream share the other one. Of a way with several
processes (workers, nginx before them) all are on that core, and their CPU is counted together.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.load import NUMBER, http
from bench.machine import free_port, start
from bench.native import built
from gateway.run.embedded import Stores, nginx_binary
from gateway.run.stack import render_nginx

KEY = "bench-key-of-this-run"
TOOLS = 1000
_ONE_TOOL = -2  # beside its three
_TEXT = f"call {NUMBER} the quick brown fox jumps over the lazy dog, 0123456789, and then some more text"
_VERSION = "2025-11-25"
_HELLO = {"protocolVersion": _VERSION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
_BOTH = {"accept": "application/json, text/event-stream"}
_HOP = """
worker_processes 1; pid nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi; keepalive_requests 1000000; tcp_nodelay on;
    upstream there {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://there; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
        }}
    }}
}}
"""


@dataclass
class Way:
    """One way: where it listens, which processes it is made of, and what its callers send beside the call."""

    name: str
    port: int
    pids: list[int]
    path: str = "/mcp"
    headers: dict[str, str] = field(default_factory=dict)
    prefix: str = ""
    """What its tools' names begin with."""

    def call(self, tool: str = "echo", bytes: int = 0) -> bytes:
        """A call of a tool, whose number the answer repeats; `progress` asks for its events."""
        arguments: dict[str, Any] = {"text": _TEXT} | ({"bytes": bytes} if bytes else {})
        params: dict[str, Any] = {"name": f"{self.prefix}{tool}", "arguments": arguments}
        if tool == "progress":
            params["_meta"] = {"progressToken": 1}
        if self.path == "/mcp/tools/call":
            return http(self.port, self.path, params, self.headers)
        return self._request("tools/call", params)

    def list(self) -> bytes:
        return self._request("tools/list", {})

    def hello(self) -> bytes:
        headers = {name: text for name, text in self.headers.items() if not name.startswith("mcp-")}
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": _HELLO}
        return http(self.port, self.path, message, headers | _BOTH)

    def _request(self, method: str, params: Any) -> bytes:
        message = {"jsonrpc": "2.0", "id": NUMBER, "method": method, "params": params}
        return http(self.port, self.path, message, self.headers | _BOTH)


class Ways:
    """Starts ways, which end with the stack."""

    def __init__(self, stack: ExitStack, folder: Path, tools: int = TOOLS) -> None:
        self._stack = stack
        self._folder = folder
        self._number = 0
        self._started: dict[int, tuple[list[str], dict[str, str]]] = {}
        self.upstream, self.upstream_port = self.start_upstream(tools)

    def start_upstream(self, tools: int) -> tuple[int, int]:
        """An upstream with so many tools beside its three: its process and port."""
        port = free_port()
        pid = start(self._stack, [str(built("upstream")), str(port), str(tools)])
        wait_for(port, "/")
        return pid, port

    def direct(self) -> Way:
        return Way("direct", self.upstream_port, [])

    def hop(self) -> Way:
        """nginx, with nothing in it but proxy_pass over kept connections: the limit."""
        port = free_port()
        return Way("nginx hop", port, [self._nginx(_HOP.format(upstream=self.upstream_port, port=port), port)])

    def bare(self, kind: str, name: str) -> Way:
        """A server with as little of an application as can be: `constant`, or a `hop` over our HTTP client."""
        port = free_port()
        command = [sys.executable, "-m", "bench.bare", kind, str(port), str(self.upstream_port)]
        pid = start(self._stack, command)
        wait_for(port, "/")
        return Way(name, port, [pid])

    def gateway(
        self,
        name: str,
        *,
        server: str = "hypercorn",
        workers: int = 1,
        settings: dict[str, str] | None = None,
        checkout: Path | None = None,
        behind_nginx: bool = False,
        upstream_port: int | None = None,
        more: int = 0,
        tools_of_more: int = _ONE_TOOL,
    ) -> list[Way]:
        """The gateway on stores of its own, with the upstream registered as `bench`: at `/mcp`, and over REST.

        `more` servers of one tool each (or `tools_of_more` and three) are registered beside it.
        """
        self._number += 1
        stores, port = Stores(self._folder / f"stores-{self._number}"), free_port()
        self._stack.callback(stores.stop)
        urls = stores.start()
        environment = dict(os.environ) | {
            "DATABASE_URL": urls.database_url, "REDIS_URL": urls.redis_url, "GATEWAY_MASTER_KEY": KEY,
            "GATEWAY_PORT": str(port), "GATEWAY_WORKERS": str(workers), "GATEWAY_ALLOW_PRIVATE_UPSTREAMS": "true",
            "GATEWAY_MAX_IN_FLIGHT": "10000", "GATEWAY_MAX_SERVER_CALLS": "1000", "GATEWAY_MAX_SESSIONS": "1000000",
            "GATEWAY_PAGE_SIZE": "10000", "GATEWAY_MAX_STREAMS": "100000",
        } | (settings or {})  # fmt: skip
        command = [sys.executable, *_SERVERS[server], *_arguments(server, port)]
        pid = start(self._stack, command, environment, checkout)
        self._started[port] = command, environment
        wait_for(port, "/readyz")
        pids = [pid]
        key = {"authorization": f"Bearer {KEY}"}
        url = f"http://127.0.0.1:{upstream_port or self.upstream_port}/mcp"
        post(port, "/mcp/servers", {"name": "bench", "url": url}, key)
        if more:
            small = f"http://127.0.0.1:{self.start_upstream(tools_of_more)[1]}/mcp"
            with ThreadPoolExecutor(8) as pool:
                servers = [{"name": f"more{number}", "url": small} for number in range(more)]
                list(pool.map(lambda server: post(port, "/mcp/servers", server, key), servers))
        if behind_nginx:
            inner, port = port, free_port()
            conf = (Path(__file__).parent.parent / "deploy" / "nginx.conf").read_text()
            pids.append(self._nginx(render_nginx(conf, port, [inner, inner]), port))
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": _HELLO}
        opened = post(port, "/mcp", hello, key | _BOTH)
        session = key | {"mcp-session-id": opened["mcp-session-id"], "mcp-protocol-version": _VERSION}
        return [
            Way(f"{name}, /mcp", port, pids, "/mcp", session, "bench__"),
            Way(f"{name}, REST", port, pids, "/mcp/tools/call", key, "bench__"),
        ]

    def with_key(self, way: Way, name: str) -> Way:
        """The same gateway, asked with a key that has grants and limits which are never reached."""
        grants = {
            "allow": [{"servers": ["bench"], "tools": ["*"]}, {"tags": ["public"]}],
            "deny": [{"tools": ["delete_*"]}],
        }
        limits = {"calls_per_second": 1_000_000, "concurrent": 10_000, "calls_per_day": 1_000_000_000}
        made = {"name": name, "grants": grants, "limits": limits}
        _, key = ask(way.port, "/keys", made, {"authorization": f"Bearer {KEY}"})
        headers = {"authorization": f"Bearer {key['key']}"}
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": _HELLO}
        opened = post(way.port, "/mcp", hello, headers | _BOTH)
        session = headers | {"mcp-session-id": opened["mcp-session-id"], "mcp-protocol-version": _VERSION}
        return Way(name, way.port, way.pids, "/mcp", session, way.prefix)

    def with_toolset(self, way: Way, name: str, **more: Any) -> Way:
        """The same gateway, asked at a toolset that has everything, under bare names."""
        self._number += 1
        slug, headers = f"bench-{self._number}", {"authorization": f"Bearer {KEY}"}
        spec = {"slug": slug, "include": [{"servers": ["bench"]}], "names": "bare", **more}
        ask(way.port, "/mcp/toolsets", spec, headers)
        path = f"/mcp/toolsets/{slug}/mcp"
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": _HELLO}
        opened = post(way.port, path, hello, headers | _BOTH)
        session = headers | {"mcp-session-id": opened["mcp-session-id"], "mcp-protocol-version": _VERSION}
        return Way(name, way.port, way.pids, path, session)

    def restart(self, way: Way) -> float:
        """End a gateway, start it again, and wait until it is ready: the seconds that the start took."""
        command, environment = self._started[way.port]
        os.kill(way.pids[0], signal.SIGTERM)
        os.waitpid(way.pids[0], 0)
        began = time.perf_counter()
        way.pids[0] = start(self._stack, command, environment)
        wait_for(way.port, "/readyz")
        return time.perf_counter() - began

    def _nginx(self, conf: str, port: int) -> int:
        self._number += 1
        folder = self._folder / f"nginx-{self._number}"
        for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
            (folder / name).mkdir(parents=True)
        (folder / "nginx.conf").write_text(conf)
        root = " user root;" if os.geteuid() == 0 else ""
        command = [str(nginx_binary()), "-p", f"{folder}/", "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        pid = start(self._stack, [*command, "-g", f"daemon off;{root}"])
        wait_for(port, "/")
        return pid


_SERVERS = {
    "hypercorn": ["-m", "gateway", "serve"],
    "uvicorn": ["-m", "uvicorn", "gateway.asgi:app", "--no-access-log", "--log-level", "warning", "--no-server-header"],
    "granian": ["-m", "granian", "gateway.asgi:app", "--interface", "asgi", "--workers", "1", "--log-level", "warning"],
}


def has_server(name: str) -> bool:
    """Whether this environment can run the gateway on a server."""
    return name == "hypercorn" or find_spec(name) is not None


def _arguments(server: str, port: int) -> list[str]:
    return {
        "hypercorn": [],
        "uvicorn": ["--port", str(port), "--loop", "uvloop", "--http", "httptools"],
        "granian": ["--port", str(port), "--loop", "uvloop"],
    }[server]


def post(port: int, path: str, value: object, headers: dict[str, str]) -> dict[str, str]:
    """Send a POST; the headers of its answer, in lower case."""
    return ask(port, path, value, headers)[0]


def ask(port: int, path: str, value: object, headers: dict[str, str]) -> tuple[dict[str, str], Any]:
    """Send a POST; the headers of its answer, in lower case, and its JSON."""
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, json.dumps(value).encode(), {"content-type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=30) as answer:
        body = answer.read()
        return {name.lower(): value for name, value in answer.headers.items()}, json.loads(body) if body else None


def wait_for(port: int, path: str) -> None:
    """Wait until something answers there, whatever it says of the path."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
                return
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing answers at http://127.0.0.1:{port}{path}")
        time.sleep(0.05)
