"""`make bench`: tool calls through the gateway beside bare hypercorn and an nginx hop, in one run.

Each row is measured in short rounds that take turns, so that a noisy machine is noisy for all of them. The hop has one
core to itself, the load generator and the upstream share the other; CPU per call is that of the hop alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from bench.load import Load, run
from gateway.run.embedded import Stores, nginx_binary
from gateway.run.stack import render_nginx

KEY = "bench-key-of-this-run"
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Row:
    """One way to the upstream."""

    name: str
    port: int
    request: bytes
    pid: int
    loads: list[Load] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    ticks = 0
    for each in tree(pid):
        values = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(values[11]) + int(values[12])
    return ticks / _TICK


def pin(pid: int, core: int) -> None:
    if len(os.sched_getaffinity(0)) > 1 or core == 0:
        for each in tree(pid):
            os.sched_setaffinity(each, {core % (os.cpu_count() or 1)})


def post(port: int, path: str, value: object, headers: dict[str, str]) -> dict[str, str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(value).encode(), {"content-type": "application/json", **headers}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()
        return {name.lower(): value for name, value in answer.headers.items()}


def prepared(port: int, path: str, value: object, headers: dict[str, str]) -> bytes:
    body = json.dumps(value).encode()
    fixed = {"host": f"127.0.0.1:{port}", "content-type": "application/json", "content-length": str(len(body))}
    lines = "".join(f"{name}: {text}\r\n" for name, text in (fixed | headers).items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def wait_for(port: int, path: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def start(
    stack: ExitStack, command: list[str], environment: dict[str, str] | None = None, folder: Path | None = None
) -> int:
    # the lines of calls are written, as in earnest, but not shown
    process = subprocess.Popen(
        command,
        env=environment or dict(os.environ),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    return process.pid


def rows(stack: ExitStack, folder: Path, beside: list[Path]) -> tuple[list[Row], int]:
    """Start every part; return the rows and the upstream's pid."""
    upstream, hop = free_port(), free_port()
    upstream_pid = start(stack, [sys.executable, "-m", "bench.upstream", str(upstream)])
    conf = folder / "nginx.conf"
    source = Path(__file__).parent.parent / "deploy" / "nginx.conf"
    conf.write_text(render_nginx(source.read_text(), hop, [upstream, upstream]))
    for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (folder / name).mkdir()
    root = " user root;" if os.geteuid() == 0 else ""
    nginx = [str(nginx_binary()), "-p", f"{folder}/", "-c", str(conf), "-e", "stderr", "-g", f"daemon off;{root}"]
    nginx_pid = start(stack, nginx)
    for port in (upstream, hop):
        wait_for(port, "/")
    direct = prepared(upstream, "/mcp", call("bench"), {})
    found = [
        Row("bare hypercorn (the upstream)", upstream, direct, upstream_pid),
        Row("nginx hop", hop, prepared(hop, "/mcp", call("bench"), {}), nginx_pid),
        *gateway_rows(stack, folder / "stores", upstream, "gateway", Path.cwd()),
    ]
    for number, checkout in enumerate(beside, 1):
        found += gateway_rows(stack, folder / f"stores-{number}", upstream, checkout.name, checkout)
    return found, upstream_pid


def gateway_rows(stack: ExitStack, stores_folder: Path, upstream: int, name: str, checkout: Path) -> list[Row]:
    """Start the gateway of a checkout, with stores of its own, and open a session at it."""
    stores, own = Stores(stores_folder), free_port()
    stack.callback(stores.stop)
    urls = stores.start()
    environment = dict(os.environ) | {
        "DATABASE_URL": urls.database_url, "REDIS_URL": urls.redis_url, "GATEWAY_MASTER_KEY": KEY,
        "GATEWAY_PORT": str(own), "GATEWAY_WORKERS": "1", "GATEWAY_ALLOW_PRIVATE_UPSTREAMS": "true",
    }  # fmt: skip
    pid = start(stack, [sys.executable, "-m", "gateway", "serve"], environment, checkout)
    wait_for(own, "/readyz")
    key = {"authorization": f"Bearer {KEY}"}
    post(own, "/mcp/servers", {"name": "bench", "url": f"http://127.0.0.1:{upstream}/mcp"}, key)
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    both = {**key, "accept": "application/json, text/event-stream"}
    opened = post(own, "/mcp", {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}, both)
    session = {**both, "mcp-session-id": opened["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    rest = {"name": "bench__bench", "arguments": {"text": "hello"}}
    return [
        Row(f"{name}, MCP /mcp", own, prepared(own, "/mcp", call("bench__bench"), session), pid),
        Row(f"{name}, REST", own, prepared(own, "/mcp/tools/call", rest, key), pid),
    ]


def call(name: str) -> dict[str, object]:
    params = {"name": name, "arguments": {"text": "hello"}}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def measure(row: Row, upstream_pid: int, connections: int, seconds: float, *, keep: bool) -> None:
    pin(os.getpid(), 0)
    pin(upstream_pid, 0)
    pin(row.pid, 1)
    before = cpu_seconds(row.pid)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        load = runner.run(run(row.port, row.request, connections=connections, seconds=seconds))
    if keep:
        row.loads.append(load)
        row.cpu.append((cpu_seconds(row.pid) - before) / max(1, len(load.latencies)))


def report(measured: list[Row], connections: int) -> Table:
    table = Table("way", "calls/s", "CPU of the hop / call", "p50", "p99", "failed")
    table.title = f"{connections} connections, one worker; {platform.python_version()}, {os.cpu_count()} cores"
    for row in measured:
        middle = statistics.median
        table.add_row(
            row.name,
            f"{middle(load.rate for load in row.loads):,.0f}",
            f"{middle(row.cpu) * 1e6:,.0f} us",
            f"{middle(load.quantile(0.5) for load in row.loads) * 1e3:.2f} ms",
            f"{middle(load.quantile(0.99) for load in row.loads) * 1e3:.2f} ms",
            str(sum(load.failed for load in row.loads)),
        )
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--beside", type=Path, nargs="*", default=[], help="other checkouts, measured in turn")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        measured, upstream_pid = rows(stack, folder, [path.absolute() for path in options.beside])
        for turn in range(options.rounds + 1):  # the first turn warms up
            for row in measured:
                measure(row, upstream_pid, options.connections, options.seconds, keep=turn > 0)
        Console(width=None if sys.stdout.isatty() else 120).print(report(measured, options.connections))
    return 1 if any(load.failed for row in measured for load in row.loads) else 0


if __name__ == "__main__":
    sys.exit(main())
