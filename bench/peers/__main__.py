"""`make bench-peers`: a tool call through other gateways, side by side with ours, in one run.

Each peer is installed into an environment of its own when it is first needed. A peer that can't be installed, started
or measured is a row that says why.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.machine import facts
from bench.peers.known import PEERS, TOOLS
from bench.peers.run import Row, judge, measure, started
from bench.report import keep, show_goals
from bench.ways import Ways
from gateway.version import VERSION

_COLUMNS = ("way", "version", "calls/s", "spread", "CPU/call", "p50", "p99", "memory", "failed", "ours to it", "how")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="some peers, with commas between; nothing is kept")
    options = parser.parse_args()
    groups = sorted({peer.group for peer in PEERS})
    only = [name.strip() for name in options.only.split(",") if name.strip()]
    if unknown := set(only) - set(groups):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(groups)}")
    peers = [peer for peer in PEERS if not only or peer.group in only]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-peers-")))
        ways = Ways(stack, folder, TOOLS)
        rows = _ours(ways)
        for peer in peers:
            print(f"{peer.name}: {peer.package.requirement}", file=sys.stderr)
            rows.append(started(stack, folder, peer, ways.upstream_port))
        measure(rows, ways.upstream, options.rounds, options.seconds)
    goals = judge(rows)
    if not only:
        keep({"goals": goals, "peers": {"host": facts(), "rows": [row.as_json() for row in rows]}})
    console = Console(width=None if sys.stdout.isatty() else 170)
    console.print(show(rows))
    console.print(show_goals(goals))
    return int(any(not row.is_right for row in rows if not row.language))


def _ours(ways: Ways) -> list[Row]:
    gateway = ways.gateway("gateway")
    return [
        Row("nginx hop", how="proxy_pass over kept connections", way=ways.hop()),
        Row("bare, a hop", how="our HTTP, nothing of a gateway", way=ways.bare("hop", "bare, a hop")),
        *(Row(way.name, version=VERSION, how="hypercorn, one worker", way=way) for way in gateway),
    ]


def show(rows: Sequence[Row]) -> Table:
    """The rows as a table for a terminal."""
    table = Table(*_COLUMNS)
    ours = next(row for row in rows if row.name.startswith("gateway"))
    for row in rows:
        if not row.rounds:
            table.add_row(row.name, row.version, *[""] * 8, row.reason)
            continue
        rates = [each.rate for each in row.rounds]
        table.add_row(
            row.name,
            row.version,
            f"{row.middle('rate'):,.0f}",
            f"{min(rates):,.0f}-{max(rates):,.0f}",
            f"{row.middle('cpu_us'):,.0f} us",
            f"{row.middle('p50') / 1e3:.2f} ms",
            f"{row.middle('p99') / 1e3:.2f} ms",
            f"{row.memory / (1 << 20):.0f} MiB",
            str(row.failed),
            f"{ours.ratio(row):.2f}" if ours.is_right and row.is_right else "",
            row.reason or row.how,
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
