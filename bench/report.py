"""What a run found: the table, `results/latest.json` with the goals under stable keys, the picture."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.idle import Idle
from bench.load import Row
from bench.machine import facts

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
_PICTURE = ROOT / "docs" / "bench.svg"
_IN_README = frozenset(
    {
        "direct",
        "nginx hop",
        "bare, a hop",
        "gateway, /mcp",
        "gateway, a key, /mcp",
        "gateway, REST",
        "gateway behind nginx, /mcp",
        "gateway, 50,000 tools, /mcp",
    }
)
"""The ways that the README has; the picture has all of them."""
_BEGIN, _END = ".. bench: begin", ".. bench: end"
_SHOWN = "JSON call"
_BAR, _ROW, _LEFT = 360, 24, 210  # pixels


def show(rows: list[Row]) -> Table:
    """The rows as a table for a terminal."""
    table = Table("way", "what", "callers", "calls/s", "spread", "CPU/call", "p50", "p99", "failed")
    hop = {(row.what, row.connections): row for row in rows if row.way == "nginx hop"}
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
            f"{row.ratio(limit):.3f}" if limit else "",
        )
    return table


class Result:
    """The rows of a run, and how they stand to the goals."""

    def __init__(self, rows: list[Row], idle: Idle) -> None:
        self._rows = rows
        self._idle = idle
        self._goals: dict[str, dict[str, Any]] = {}
        self.search: dict[str, Any] = {}

    @property
    def failed(self) -> int:
        return int(any(row.failed for row in self._rows))

    def judge(
        self, at_32: list[Row], late: list[Row], growth: list[Row], *, memory: tuple[int, int], keyed: str
    ) -> None:
        """Set the goals beside what was reached; `keyed` is the way with a key that has grants and limits."""
        rows = {row.way: row for row in at_32}
        ours, hop, bare = rows["gateway, /mcp"], rows["nginx hop"], rows["bare, a hop"]
        self._goal("gateway_to_hop", ours.ratio(hop), at_least=0.30)
        self._goal("calls_with_a_key_to_master", rows[keyed].ratio(ours), at_least=0.95)
        self._goal("cpu_added_to_bare_hop", ours.ratio(bare, "cpu_us") - 1, at_most=40 / 42)
        p99 = {row.way: row.middle("p99") for row in late}
        added = max(p99["nginx hop"] - p99["direct"], 1.0)
        self._goal("p99_added_to_nginx_added", (p99[ours.way] - p99["direct"]) / added, at_most=3.0)
        audited, plain = (next(row for row in late if row.way == way) for way in (ours.way, "gateway, no audit, /mcp"))
        self._goal("us_of_the_audit_per_call_at_half_of_saturation", audited.above(plain, "cpu_us"), at_most=8.0)
        few, many, full, known = growth
        self._goal("calls_with_1000_servers_and_tools_to_10", many.ratio(few), at_least=0.95)
        self._goal("calls_with_50000_tools_to_10", full.ratio(few), at_least=0.95)
        self._goal("calls_with_10000_sessions_to_1", known.ratio(few), at_least=0.95)
        self._goal("kib_per_idle_stream", self._idle.stream_bytes / 1024, at_most=20.0)
        self._goal("core_for_5000_idle_streams", self._idle.cpu_share * 5000 / self._idle.count, at_most=0.05)
        self._goal("memory_after_100000_calls_to_1000", memory[1] / memory[0], at_most=1.05)

    def judge_toolsets(self, at_32: list[Row], mcp: str, toolset: str, overridden: str) -> None:
        """What a toolset costs beside `/mcp`, and an override of arguments beside a toolset."""
        rows = {row.way: row for row in at_32}
        self._goal("calls_at_a_toolset_to_mcp", rows[toolset].ratio(rows[mcp]), at_least=0.95)
        self._goal("us_of_an_override_per_call", rows[overridden].above(rows[toolset], "cpu_us"), at_most=10.0)

    def judge_search(self, found: dict[str, Any]) -> None:
        """How well the tool search finds, what it takes, and what its list costs a model (`recall`)."""
        self.search = found
        self._goal("search_recall_at_3_final", found["final"]["ours"]["all"], at_least=0.90)
        self._goal("search_us_per_query_at_1000_tools", found["us_per_query_at_1000_tools"], at_most=100.0)
        self._goal("search_tokens_of_the_list", found["tokens"]["search"], at_most=1_800.0)

    def judge_growth(self, *, callable_seconds: float, start_seconds: float, memory_of_result: float) -> None:
        """The same for what is one figure each, and no row."""
        self._goal("seconds_from_registration_to_callable_everywhere", callable_seconds, at_most=0.1)
        self._goal("seconds_to_start_with_1000_servers", start_seconds, at_most=3.0)
        self._goal("memory_of_a_10_mib_result_to_its_size", memory_of_result, at_most=3.0)

    def _goal(self, name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        self._goals[name] = goal(value, at_least=at_least, at_most=at_most)

    def write(self) -> None:
        """Keep the raw results of this run, in place of the last one's."""
        rows = [row.as_json() for row in self._rows]
        found = {"host": facts(), "goals": self._goals, "idle": asdict(self._idle), "rows": rows}
        found["search"] = self.search
        keep(found)
        publish()

    def print(self) -> None:
        console = Console(width=None if sys.stdout.isatty() else 150)
        console.print(show(self._rows))
        console.print(show_goals(self._goals))


def goal(value: float | None, *, at_least: float | None = None, at_most: float | None = None) -> dict[str, Any]:
    """A goal beside what was reached; None where it could not be measured, which is not met."""
    bound = {"at_least": at_least} if at_least is not None else {"at_most": at_most}
    if value is None:
        return {"value": None, **bound, "met": False}
    is_met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    return {"value": round(value, 3), **bound, "met": is_met}


def show_goals(goals: dict[str, dict[str, Any]]) -> Table:
    """The goals as a table for a terminal."""
    table = Table("goal", "value", "bound", "met")
    for name, each in goals.items():
        bound = f"at least {each['at_least']:.2f}" if "at_least" in each else f"at most {each['at_most']:.2f}"
        value = "not measured" if each["value"] is None else f"{each['value']:.3f}"
        table.add_row(name, value, bound, "yes" if each["met"] else "no")
    return table


def keep(found: dict[str, Any], folder: Path = RESULTS) -> None:
    """Keep what a run found, in place of the last one's; what other kinds of runs found stays, also their goals."""
    folder.mkdir(exist_ok=True)
    path = folder / "latest.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    goals = kept.get("goals", {}) | found["goals"]
    path.write_text(json.dumps(kept | found | {"goals": goals}, indent=1) + "\n")


def publish() -> None:
    """Make the README's table and the picture from the results that are kept."""
    found = json.loads((RESULTS / "latest.json").read_text())
    rows = [row for row in found["rows"] if row["what"] == _SHOWN and row["connections"] == 32]
    rows = [row for row in rows if "servers" not in row["way"]]
    _PICTURE.write_text(_picture(rows))
    readme = ROOT / "README.rst"
    before, _, rest = readme.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    shown = [row for row in rows if row["way"] in _IN_README]
    readme.write_text(f"{before}{_BEGIN}\n\n{_table(shown, found)}\n{_END}{after}")


def _table(rows: list[dict[str, Any]], found: dict[str, Any]) -> str:
    hop = next(row["calls_per_second"] for row in rows if row["way"] == "nginx hop")
    lines = [("way", "calls/s", "of the hop", "CPU", "p50", "p99")]
    for row in rows:
        rate = row["calls_per_second"]
        cpu = f"{row['cpu_us_per_call']:,.0f} us" if row["cpu_us_per_call"] else ""
        lines.append(
            (row["way"], f"{rate:,.0f}", f"{rate / hop:.2f}", cpu, *(f"{row[k] / 1e3:.1f} ms" for k in _TIMES))
        )
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    rule = "  ".join("=" * width for width in widths)
    shown = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    host = found["host"]
    return "\n".join(
        [
            rule, shown[0], rule, *shown[1:], rule, "",
            "``tools/call`` of some 250 bytes, 32 callers, one worker on one core of two, the rest on the other;",
            f"CPython {host['python']}, {host['cpu']}. `The picture <docs/bench.svg>`_;",
            "`how it is measured <bench/README.rst>`_.",
        ]
    ) + "\n"  # fmt: skip


_TIMES = ("p50_us", "p99_us")


def _picture(rows: list[dict[str, Any]]) -> str:
    """The rows as bars of calls per second."""
    most = max(row["calls_per_second"] for row in rows)
    height = _ROW * len(rows) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _BAR + 90}" height="{height}" font-size="12"'
        ' font-family="sans-serif" role="img">',
        "<title>Tool calls per second</title>",
        '<style>text{fill:#333}rect{fill:#9db4c0}.ours{fill:#2a7f62}'
        "@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>",
        f'<text x="{_LEFT}" y="18">tools/call a second, 32 callers, one core</text>',
    ]  # fmt: skip
    for number, row in enumerate(rows):
        y, rate = 32 + number * _ROW, row["calls_per_second"]
        ours = ' class="ours"' if row["way"].startswith("gateway") else ""
        parts += [
            f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{row["way"]}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{max(1, rate / most * _BAR):.0f}" height="{_ROW - 6}"{ours}/>',
            f'<text x="{_LEFT + rate / most * _BAR + 6:.0f}" y="{y + 13}">{rate:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
