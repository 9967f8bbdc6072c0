"""`mcp-gateway check`: is everything there, and does the way through the load balancer carry what MCP needs?

Each finding says what is wrong and what to change. Knows the gateway from outside only.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.cli.client import Exit, Refused, Remote

_AT_ONCE_SECONDS = 3.0
_TWO_COMMENTS = 2 * len(": keep-alive\n\n")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `fix` is empty where it is well."""

    what: str
    said: str
    fix: str = ""
    code: Exit = Exit.FAILED

    @property
    def well(self) -> bool:
        return not self.fix


def run(remote: Remote, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look at everything, in the order in which one thing needs the other."""
    try:
        state = remote.ask("GET", "/readyz")
    except Refused as error:
        yield Finding("gateway", str(error), "start it, or say with --url where it is", error.code)
        return
    yield Finding("gateway", f"version {state['version']}, replica {state['replica']}, revision {state['revision']}")
    yield from _degraded(state)
    for name, probe in (("DATABASE_URL", _postgres), ("REDIS_URL", _redis)):
        if url := environment.get(name):
            yield _direct(name, url, probe)
    try:
        servers = remote.ask("GET", "/mcp/servers")["servers"]
    except Refused as error:
        yield Finding("key", str(error), "set GATEWAY_MASTER_KEY, or send --key", error.code)
        return
    yield Finding("key", "accepted")
    for server in servers:
        yield _server(server)
    yield _guard("stream", remote, _stream)
    yield _guard("request id", remote, _request_id)
    yield _guard("session header", remote, _session)
    yield _guard("body size", remote, lambda one: _body(one, state.get("max_body", 1 << 20)))


def _guard(what: str, remote: Remote, look: Callable[[Remote], Finding]) -> Finding:
    try:
        return look(remote)
    except (httpx.HTTPError, Refused, ValueError, KeyError) as error:
        return Finding(
            what, f"{type(error).__name__}: {error}", "the connection broke: look at the load balancer's log"
        )


def _degraded(state: Mapping[str, Any]) -> Iterator[Finding]:
    for reason in state["degraded"]:
        store = "Redis" if "Redis" in reason else "database"
        yield Finding(store, reason, f"see that {store} runs and that the gateway's URL for it is right")
    if not state["degraded"]:
        yield Finding("database, Redis", f"the gateway reaches both; last read {state['lag_seconds']} s ago")


def _direct(name: str, url: str, probe: Callable[[str], str]) -> Finding:
    try:
        return Finding(name, probe(url))
    except Exception as error:
        return Finding(name, str(error).strip().splitlines()[0], f"correct {name}, or start what it names")


def _postgres(url: str) -> str:
    import psycopg

    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return f"PostgreSQL {row[0] if row else '?'}"


def _redis(url: str) -> str:
    import redis

    with redis.Redis.from_url(url, socket_timeout=5) as client:
        info: Any = client.info("server")
    return f"Redis {info.get('redis_version', '?')}"


def _server(server: Mapping[str, Any]) -> Finding:
    name = f"server {server['name']}"
    match server["state"]:
        case "ready" if server.get("lock") == "enforce" and server.get("changes"):
            said = f"ready, but {server['changes']} of its tools are not as they were approved"
            return Finding(name, said, f"look at `servers changes {server['name']}`, then `servers approve`")
        case "ready":
            return Finding(name, f"ready, {server['counts']['tools']} tools, MCP {server['protocol_version']}")
        case "disabled":
            return Finding(name, "disabled")
        case "starting":
            return Finding(name, "starting: it was not asked yet what it offers")
    return Finding(
        name,
        str(server["reason"]),
        f"mend what the reason says; `servers update {server['name']} …` changes the server",
    )


def _stream(remote: Remote) -> Finding:
    """What a stream says after its head must come at once: a buffering proxy keeps it.

    The stream of `/mcp` says two comments, a moment apart; a proxy may let the first pass together with the head.
    """
    began = time.monotonic()
    headers = {"accept": "text/event-stream"}
    address = "/mcp/servers"
    if session := _open_session(remote):
        address = "/mcp"
        headers |= {"mcp-session-id": session}
    timeout = httpx.Timeout(5, read=_AT_ONCE_SECONDS)
    try:
        with remote.http.stream("GET", remote.url + address, headers=headers, timeout=timeout) as answer:
            kind = answer.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                return Finding("stream", f"content-type {kind!r}", "let the load balancer pass Accept and Content-Type")
            heard = 0
            for piece in answer.iter_raw():
                heard += len(piece)
                if heard >= _TWO_COMMENTS or not session:
                    break
    except httpx.ReadTimeout:
        return Finding(
            "stream",
            f"nothing within {_AT_ONCE_SECONDS:g} s",
            "the load balancer buffers: no gzip on text/event-stream, proxy_buffering off, proxy_http_version 1.1 "
            "(see deploy/nginx.conf)",
        )
    finally:
        if session:
            remote.http.delete(f"{remote.url}/mcp", headers={"mcp-session-id": session})
    return Finding("stream", f"two comments after {(time.monotonic() - began) * 1e3:.0f} ms")


def _open_session(remote: Remote) -> str | None:
    """A session that works, or None."""
    info = {"name": "mcp-gateway check", "version": "1"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}  # its streams begin bare
    opened = _mcp(remote, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})
    session: str | None = opened.headers.get("mcp-session-id")
    if session and _mcp(remote, {"jsonrpc": "2.0", "id": 1, "method": "ping"}, session).status_code == 200:
        return session
    return None


def _mcp(remote: Remote, message: Any, session: str | None = None) -> httpx.Response:
    headers = {"accept": "application/json, text/event-stream"} | ({"mcp-session-id": session} if session else {})
    return remote.http.post(f"{remote.url}/mcp", headers=headers, json=message)


def _request_id(remote: Remote) -> Finding:
    asked = f"check-{secrets.token_hex(4)}"
    answer = remote.http.get(f"{remote.url}/healthz", headers={"x-request-id": asked})
    if answer.headers.get("x-request-id") != asked:
        return Finding("request id", "X-Request-Id does not come back", "let the load balancer pass X-Request-Id")
    return Finding("request id", "passed on")


def _session(remote: Remote) -> Finding:
    """MCP's headers must pass both ways."""
    session = _open_session(remote)
    if session is None:
        return Finding(
            "session header",
            "a session that was opened is not known with the next request",
            "let the load balancer pass Mcp-Session-Id both ways, and give all replicas the same GATEWAY_SECRET "
            "or database",
        )
    remote.http.delete(f"{remote.url}/mcp", headers={"mcp-session-id": session})
    return Finding("session header", "passes both ways")


def _body(remote: Remote, max_body: int) -> Finding:
    """The load balancer's limit must not be below the gateway's."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": {"padding": ""}}}
    padding = max_body - len(json.dumps(message)) - 64
    message["params"] = {"_meta": {"padding": "x" * padding}}
    answer = remote.http.post(f"{remote.url}/rpc", json=message)
    if answer.status_code != 200:
        return Finding(
            "body size",
            f"a body of {max_body} bytes answered {answer.status_code}",
            "raise the load balancer's limit (nginx: client_max_body_size) above GATEWAY_MAX_BODY",
        )
    return Finding("body size", f"{max_body} bytes pass")
