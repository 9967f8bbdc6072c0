"""What grows with what is registered, opened or sent: calls, starts, registrations and memory, each as one figure."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.load import Load, run
from bench.machine import tree
from bench.ways import KEY, Way, Ways, post

_KEY = {"authorization": f"Bearer {KEY}"}
_LARGE = 10 << 20
_REGISTRATIONS = 15
_ASKED_IN_A_ROW = 8  # calls over connections of their own that all have to succeed: each reaches some worker
_GIVE_UP_SECONDS = 30.0


def seconds_to_be_callable(ways: Ways) -> float:
    """From the POST that registers a server until its tool can be called at both workers: the median."""
    way = ways.gateway("registrations", workers=2)[0]
    url = f"http://127.0.0.1:{ways.start_upstream(7)[1]}/mcp"
    took = []
    for number in range(_REGISTRATIONS):
        began = time.perf_counter()
        post(way.port, "/mcp/servers", {"name": f"new{number}", "url": url}, _KEY)
        in_a_row = 0
        while in_a_row < _ASKED_IN_A_ROW:
            in_a_row = in_a_row + 1 if _call(way.port, f"new{number}__echo") else 0
            if time.perf_counter() - began > _GIVE_UP_SECONDS:
                raise RuntimeError("a server that was registered can't be called")
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def seconds_to_start(ways: Ways, servers: int) -> float:
    """From the start of the gateway's process, with so many registered servers, until it is ready."""
    way = ways.gateway("restarted", more=servers - 1)[0]
    return ways.restart(way)


def memory_of_result(ways: Ways) -> float:
    """How much more memory a worker has at most while a result passes that has 10 MiB, as a multiple of these."""
    way = ways.gateway("large results")[0]
    small = Load(way.call("large", 1 << 10), 1, 0.5, least=1 << 10, expected="lazy dog")
    large = Load(way.call("large", _LARGE), 1, 2.0, least=_LARGE, expected="lazy dog")
    run(way.port, small, way.pids)
    worker = max(tree(way.pids[0]), key=lambda pid: _memory(pid, "VmRSS"))
    Path(f"/proc/{worker}/clear_refs").write_text("5")  # the peak begins anew
    before = _memory(worker, "VmRSS")
    found = run(way.port, large, way.pids)
    if found.failed:
        raise RuntimeError(f"a large result failed: {found.sample}")
    return (_memory(worker, "VmHWM") - before) / _LARGE


def open_sessions(way: Way, count: int) -> None:
    """Open sessions at a gateway, and leave them."""
    hello = Load(way.hello(), 32, 1.0, expected="serverInfo")
    opened = 0
    while opened < count:
        opened += run(way.port, hello, way.pids).calls


def _call(port: int, tool: str) -> bool:
    """Whether a tool can be called, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = json.dumps({"name": tool, "arguments": {"text": "the quick brown fox"}})
    with suppress(OSError):
        connection.request("POST", "/mcp/tools/call", body, _KEY | {"content-type": "application/json"})
        answer = connection.getresponse()
        found: Any = json.loads(answer.read())
        connection.close()
        return answer.status == 200 and "result" in found
    return False


def _memory(pid: int, figure: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{figure}:"):
            return int(line.split()[1]) << 10
    return 0
