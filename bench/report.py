"""What a run found: the table, `results/latest.json` with the goals under stable keys, the picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.load import Row
from bench.machine import facts

RESULTS = Path(__file__).parent / "results"


def show(rows: list[Row]) -> Table:
    """The rows as a table for a terminal."""
    table = Table("way", "what", "callers", "calls/s", "spread", "CPU/call", "p50", "p99", "failed")
    hop = {(row.what, row.connections): row.middle("rate") for row in rows if row.way == "nginx hop"}
    table.add_column("to the hop")
    for row in rows:
        rates, ours = [each.rate for each in row.rounds], row.middle("rate")
        limit = hop.get((row.what, row.connections))
        table.add_row(
            row.way,
            row.what,
            str(row.connections),
            f"{ours:,.0f}",
            f"{min(rates):,.0f}-{max(rates):,.0f}",
            f"{row.middle('cpu_us'):,.0f} us",
            f"{row.middle('p50') / 1e3:.2f} ms",
            f"{row.middle('p99') / 1e3:.2f} ms",
            str(row.failed),
            f"{ours / limit:.3f}" if limit else "",
        )
    return table


class Result:
    """The rows of a run, and how they stand to the goals."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows
        self._goals: dict[str, dict[str, Any]] = {}

    @property
    def failed(self) -> int:
        return int(any(row.failed for row in self._rows))

    def judge(self, at_32: list[Row], late: list[Row], *, memory: tuple[int, int]) -> None:
        """Set the goals beside what was reached."""
        rates = {row.way: row.middle("rate") for row in at_32}
        cpu = {row.way: row.middle("cpu_us") for row in at_32}
        p99 = {row.way: row.middle("p99") for row in late}
        ours = "gateway, /mcp"
        self._goal("gateway_to_hop", rates[ours] / rates["nginx hop"], at_least=0.30)
        hop = cpu["bare hypercorn, a hop"]
        self._goal("cpu_added_to_bare_hop", (cpu[ours] - hop) / hop, at_most=40 / 42)
        added = max(p99["nginx hop"] - p99["direct"], 1.0)
        self._goal("p99_added_to_nginx_added", (p99[ours] - p99["direct"]) / added, at_most=3.0)
        self._goal("memory_after_100000_calls_to_1000", memory[1] / memory[0], at_most=1.05)

    def _goal(self, name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        is_met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        bound = {"at_least": at_least} if at_least is not None else {"at_most": at_most}
        self._goals[name] = {"value": round(value, 3), **bound, "met": is_met}

    def write(self) -> None:
        """Keep the raw results of this run, in place of the last one's."""
        RESULTS.mkdir(exist_ok=True)
        rows = [row.as_json() for row in self._rows]
        found = {"host": facts(), "goals": self._goals, "rows": rows}
        (RESULTS / "latest.json").write_text(json.dumps(found, indent=1) + "\n")

    def print(self) -> None:
        console = Console(width=None if sys.stdout.isatty() else 150)
        console.print(show(self._rows))
        table = Table("goal", "value", "bound", "met")
        for name, goal in self._goals.items():
            bound = f"at least {goal['at_least']:.2f}" if "at_least" in goal else f"at most {goal['at_most']:.2f}"
            table.add_row(name, f"{goal['value']:.3f}", bound, "yes" if goal["met"] else "no")
        console.print(table)
