"""`make bench`: what a call costs through the gateway, beside other ways to the same server, in one run.

Each row is measured in short rounds that take turns, so that a noisy machine is noisy for all of them; a row is the
median of its rounds, with their spread. A wrong or failed answer fails the run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from bench import growth, recall
from bench.idle import measure as measure_idle
from bench.load import Load, Row, run
from bench.machine import memory, pin
from bench.report import Result, show
from bench.ways import Way, Ways, has_server

_CORE, _OTHER_CORE = 1, 0
_WARM_SECONDS = 0.5
_MANY_CALLS = 100_000
_FEW_CALLS = 1000
_STREAMS = 5000
_SESSIONS = 10_000
_OVERRIDES = {
    "bench": {
        "echo": {
            "title": "Echo",
            "description": "Says the same.",
            "arguments": {"text": {"description": "what to say"}, "bytes": {"default": 0}},
        }
    }
}
_FULL_SERVERS = 49  # of 1,003 tools each, beside the first one


@dataclass(frozen=True)
class Shape:
    """What is asked of a way."""

    name: str
    connections: int
    tool: str = "echo"
    bytes: int = 0

    def load(self, way: Way, seconds: float) -> Load:
        match self.tool:
            case "list":
                return Load(way.list(), self.connections, seconds, expected="tool_0999")
            case "hello":
                return Load(way.hello(), self.connections, seconds, expected="serverInfo")
            case _:
                request = way.call(self.tool, self.bytes)
                return Load(request, self.connections, seconds, least=self.bytes, expected="lazy dog")


CALL = Shape("JSON call", 32)
ONE, MANY = Shape("JSON call", 1), Shape("JSON call", 256)
OTHERS = (
    Shape("SSE call, 10 events", 32, "progress"),
    Shape("list of 1,003 tools", 32, "list"),
    Shape("1 MiB result", 8, "large", 1 << 20),
    Shape("session setup", 32, "hello"),
)


class Bench:
    """The rows of one run."""

    def __init__(self, ways: Ways, rounds: int, seconds: float) -> None:
        self._ways = ways
        self._rounds = rounds
        self._seconds = seconds
        self.rows: list[Row] = []

    def measure(self, cases: list[tuple[Way, Shape]], rate: float = 0.0) -> list[Row]:
        """Measure some cases in turn; with a rate as the open loop."""
        rows = [Row(way.name, shape.name + (" (open loop)" if rate else ""), shape.connections) for way, shape in cases]
        for turn in range(self._rounds + 1):  # the first turn warms up
            for row, (way, shape) in zip(rows, cases, strict=True):
                pin([os.getpid(), self._ways.upstream], {_OTHER_CORE})
                pin(way.pids, {_CORE})
                load = shape.load(way, self._seconds if turn else _WARM_SECONDS)
                found = run(way.port, replace(load, rate=rate), way.pids)
                if found.failed:
                    print(f"{row.way}, {row.what}: {found.failed} failed, the first: {found.sample}", file=sys.stderr)
                if turn or found.failed:
                    row.rounds.append(found)
        self.rows += rows
        return rows

    def memory_grows(self, way: Way) -> tuple[int, int]:
        """Bytes of the worker of a way that has done nothing yet, after 1,000 and after 100,000 calls."""
        after, done = list[int](), 0
        pin([os.getpid(), self._ways.upstream], {_OTHER_CORE})
        pin(way.pids, {_CORE})
        for calls, seconds in ((_FEW_CALLS, 0.1), (_MANY_CALLS, self._seconds)):
            while done < calls:
                done += run(way.port, CALL.load(way, seconds), way.pids).calls
            after.append(memory(way.pids[0]))
        return after[0], after[1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="only the JSON call with 32 callers; nothing is kept")
    parser.add_argument("--beside", type=Path, nargs="*", default=[], help="other checkouts, measured in turn")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        ways = Ways(stack, folder)
        bench = Bench(ways, options.rounds, options.seconds)
        direct, hop = ways.direct(), ways.hop()
        mcp, rest = ways.gateway("gateway")
        main_ways = [direct, hop, mcp, ways.with_key(mcp, "gateway, a key, /mcp"), rest]
        for path in options.beside:
            main_ways += ways.gateway(path.name, checkout=path.absolute())
        if options.quick:
            bench.measure([(way, CALL) for way in main_ways])
            Console(width=None if sys.stdout.isatty() else 130).print(show(bench.rows))
            return int(any(row.failed for row in bench.rows))
        result = _whole(bench, ways, direct, hop, main_ways)
    result.write()
    result.print()
    return result.failed


def _whole(bench: Bench, ways: Ways, direct: Way, hop: Way, main_ways: list[Way]) -> Result:
    mcp, keyed = main_ways[2:4]
    toolset = ways.with_toolset(mcp, "gateway, a toolset")
    overridden = ways.with_toolset(mcp, "gateway, an override", overrides=_OVERRIDES)
    main_ways += [toolset, overridden]
    main_ways.append(ways.gateway("gateway on h11", settings={"GATEWAY_HTTP1": "h11"})[0])
    bare = [ways.bare("constant", "bare, a constant"), ways.bare("hop", "bare, a hop")]
    for server in ("uvicorn", "granian"):
        if has_server(server):
            main_ways = [*main_ways, ways.gateway(f"gateway on {server}", server=server)[0]]
    two = ways.gateway("gateway, 2 workers", workers=2)[0]
    nginx = ways.gateway("gateway behind nginx", behind_nginx=True)[0]
    at_32 = bench.measure([(way, CALL) for way in [*main_ways[:2], *bare, *main_ways[2:], two, nginx]])
    for shape in (ONE, MANY):
        bench.measure([(way, shape) for way in (direct, hop, mcp)])
    for shape in OTHERS:
        bench.measure([(way, shape) for way in (direct, hop, mcp)])
    saturation = next(row for row in at_32 if row.way == mcp.name).middle("rate")
    plain = ways.gateway("gateway, no audit", settings={"GATEWAY_AUDIT": "off"})[0]
    late = bench.measure([(way, CALL) for way in (direct, hop, mcp, plain)], rate=saturation / 2)
    few = ways.gateway("gateway, 10 servers", upstream_port=ways.start_upstream(7)[1], more=9)[0]
    many = ways.gateway("gateway, 1,000 servers", more=999)[0]
    full = ways.gateway("gateway, 50,000 tools", more=_FULL_SERVERS, tools_of_more=1000)[0]
    known = ways.gateway("gateway, 10,000 sessions")[0]
    growth.open_sessions(known, _SESSIONS)
    grown = bench.measure([(few, CALL), (many, CALL), (full, CALL), (known, CALL)])
    idle = measure_idle(ways.gateway("gateway, idle")[0], _STREAMS)
    result = Result(bench.rows, idle)
    result.judge_toolsets(at_32, mcp.name, toolset.name, overridden.name)
    result.judge_search(recall.measured())
    result.judge(at_32, late, grown, memory=bench.memory_grows(ways.gateway("gateway, memory")[0]), keyed=keyed.name)
    result.judge_growth(
        callable_seconds=growth.seconds_to_be_callable(ways),
        start_seconds=growth.seconds_to_start(ways, 1000),
        memory_of_result=growth.memory_of_result(ways),
    )
    return result


if __name__ == "__main__":
    sys.exit(main())
