"""What sessions and streams cost that do nothing: memory of the worker, and CPU."""

from __future__ import annotations

import resource
import socket
import time
from dataclasses import dataclass

from bench.machine import cpu_seconds, memory
from bench.ways import Way, post

_OTHER_FILES = 500
_SETTLE_SECONDS = 3.0
_WATCH_SECONDS = 10.0


@dataclass(frozen=True)
class Idle:
    """Bytes for one, and the share of a core that all of them take while they do nothing."""

    count: int
    session_bytes: float
    stream_bytes: float
    cpu_share: float


def measure(way: Way, count: int) -> Idle:
    """Open so many sessions at a gateway, then a stream for each, and let them be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + _OTHER_FILES)), hard))
    count = min(count, hard - _OTHER_FILES)
    key = {"authorization": way.headers["authorization"]}
    pid = way.pids[0]
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
    accept = {"accept": "application/json, text/event-stream"}
    post(way.port, way.path, message, key | accept)
    before = memory(pid)
    sessions = [post(way.port, way.path, message, key | accept)["mcp-session-id"] for _ in range(count)]
    with_sessions = memory(pid)
    streams = [_open(way, key["authorization"], session) for session in sessions]
    time.sleep(_SETTLE_SECONDS)
    with_streams = memory(pid)
    used, began = cpu_seconds(way.pids), time.monotonic()
    time.sleep(_WATCH_SECONDS)
    share = (cpu_seconds(way.pids) - used) / (time.monotonic() - began)
    for each in streams:
        each.close()
    return Idle(count, (with_sessions - before) / count, (with_streams - with_sessions) / count, share)


def _open(way: Way, authorization: str, session: str) -> socket.socket:
    """The session's own stream, whose head and first bytes have come."""
    peer = socket.create_connection(("127.0.0.1", way.port), 10)
    head = (
        f"GET {way.path} HTTP/1.1\r\nhost: 127.0.0.1:{way.port}\r\nauthorization: {authorization}\r\n"
        f"accept: text/event-stream\r\nmcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n\r\n"
    )
    peer.sendall(head.encode())
    if not peer.recv(4096).startswith(b"HTTP/1.1 200"):
        raise RuntimeError("a stream was refused")
    return peer
