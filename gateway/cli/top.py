"""`mcp-gateway top`: servers, calls and workers as they are now, redrawn as they change.

It reads the stream that feeds the page (`GET /page/events`); what a role may not see is not there. On a terminal it
draws until Ctrl-C; else, and with `--once`, it prints what there is after a moment, and ends.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gateway.cli.client import Event, Exit, Refused
from gateway.cli.terminal import AsJson, Key, Url, asking, clean, print_json, print_table
from gateway.observability.ring import BUCKETS, CALLS, ERRORS, quantile

_FIRST_SECONDS = 4.0  # for what comes at once, where a part of it does not come
_RECENT_SECONDS = 300
_KEPT_CALLS = 200
_CELL = 24  # characters of somebody's words in a row of a screen
_FIGURE = 7  # of a figure, with its unit
_WORDS = ("server", "tool", "who", "reason", "replica")
_ROWS = 4  # of a section that others leave little room


class Seen:
    """What the stream said so far."""

    def __init__(self) -> None:
        self.hello: Mapping[str, Any] = {}
        self.servers: Sequence[Mapping[str, Any]] = ()
        self.calls: list[Mapping[str, Any]] = []
        self.workers: Sequence[Mapping[str, Any]] | None = None
        self.sessions: int | None = None
        self.is_quiet = False
        """Whether everything that is new was told."""
        self._slots: dict[int, Mapping[str, Sequence[int]]] = {}
        self._now = 0

    def take(self, event: Event) -> None:
        """Take one event of the stream."""
        match event.name:
            case "":
                self.is_quiet = True
            case "hello":
                self.hello = event.data
            case "servers":
                self.servers = event.data["servers"]
            case "calls":
                self.calls = [*event.data["rows"], *self.calls][:_KEPT_CALLS]
            case "workers":
                self.workers, self.sessions = event.data["workers"], event.data["sessions"]
            case "figures":
                self._now = event.data["now"]
                self._slots |= {slot["number"]: slot["servers"] for slot in event.data["slots"]}
                first = self._now - _RECENT_SECONDS // self._slot_seconds
                self._slots = {number: slot for number, slot in self._slots.items() if number > first}

    @property
    def is_whole(self) -> bool:
        """Whether all that the caller gets at once has come."""
        return bool(self.hello) and (self.workers is not None if self.hello["is_operator"] else self.is_quiet)

    def recent(self, server: str | None = None) -> Recent:
        """The calls of the last minutes, of one server or of all."""
        counts: list[int] = []
        for slot in self._slots.values():
            for each in slot.values() if server is None else [slot[server]] if server in slot else []:
                counts += [0] * (len(each) - len(counts))
                for place, count in enumerate(each):
                    counts[place] += count
        return Recent(counts, max(1, len(range(self._first(), self._now + 1))) * self._slot_seconds)

    @property
    def _slot_seconds(self) -> int:
        return int(self.hello.get("slot_seconds", 10))

    def _first(self) -> int:
        """The first slot that counts: figures are younger than the gateway."""
        return min(self._slots, default=self._now)


class Recent:
    """Counts of calls over some seconds."""

    def __init__(self, counts: Sequence[int], seconds: int) -> None:
        self.calls = counts[CALLS] if counts else 0
        self.errors = counts[ERRORS] if counts else 0
        self.per_second = self.calls / seconds
        self._buckets = counts[BUCKETS:]

    def ms(self, share: float) -> float | None:
        """Milliseconds within which this share of the calls ended; None without calls."""
        seconds = quantile(self._buckets, share)
        return None if seconds is None else round(seconds * 1e3, 2)


def top(
    once: Annotated[bool, typer.Option("--once", help="print it once, and end")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Watch servers, calls and workers, live."""
    with asking(url, key, as_json) as to:
        seen, console = Seen(), Console()
        try:
            if to.as_json or once or not sys.stdout.isatty():
                began = time.monotonic()
                for event in to.remote.events("/page/events", beats=True):
                    seen.take(event)
                    if seen.is_whole or time.monotonic() - began > _FIRST_SECONDS:
                        break
                _print(seen, as_json=to.as_json)
                return
            with Live(console=console, screen=True, auto_refresh=False) as live:
                for event in to.remote.events("/page/events"):
                    seen.take(event)
                    if seen.hello:
                        live.update(_screen(seen, console.height), refresh=True)
        except Refused as error:
            if str(error.problem.get("type", "")).endswith(":not-found"):
                raise Refused("This gateway has no /page/events, which top reads: is it older?", Exit.FAILED) from None
            raise
        except KeyboardInterrupt:
            return
        raise Refused("The gateway ended the stream.", Exit.UNREACHABLE)


def _print(seen: Seen, *, as_json: bool) -> None:
    if as_json:
        servers = [
            {"name": each["name"], "state": each["state"], "calls": recent.calls, "errors": recent.errors}
            | {"per_second": round(recent.per_second, 2), "p50_ms": recent.ms(0.5), "p95_ms": recent.ms(0.95)}
            for each in seen.servers
            for recent in [seen.recent(each["name"])]
        ]
        print_json({"servers": servers, "workers": seen.workers, "sessions": seen.sessions, "calls": seen.calls})
        return
    print_table(_servers(seen, None))
    if seen.workers is not None:
        print_table(_workers(seen, None))
    print_table(_calls(seen, None))


def _screen(seen: Seen, height: int) -> RenderableType:
    """All of it, for a terminal of so many lines: what does not fit is left out, and counted."""
    all_calls, hello = seen.recent(), seen.hello
    head = Text.assemble(
        ("mcp-gateway ", "bold"), f"{hello['version']}  {clean(hello['url'])}  {len(seen.servers)} servers",
        "" if seen.sessions is None else f"  {seen.sessions} sessions",
        f"  {all_calls.per_second:.1f} calls/s" if seen.workers is not None else "",
        f"  p50 {_ms(all_calls.ms(0.5))}  p99 {_ms(all_calls.ms(0.99))}" if all_calls.calls else "",
        overflow="ellipsis", no_wrap=True,
    )  # fmt: skip
    workers = len(seen.workers or ()) + 3 if seen.workers is not None else 0
    room = max(2 * _ROWS, height - 1 - min(workers, _ROWS + 3) - 6)
    of_servers = min(len(seen.servers), max(_ROWS, room // 2))
    parts: list[RenderableType] = [head, _servers(seen, of_servers)]
    if seen.workers is not None:
        parts.append(_workers(seen, _ROWS))
    parts.append(_calls(seen, max(_ROWS, room - of_servers)))
    return Group(*parts)


def _servers(seen: Seen, most: int | None) -> Table:
    """The servers that are called most first, of those the ones that are in trouble."""
    with_figures = seen.workers is not None
    heads = ["server", "state", "tools", *(("calls/s", "errors", "p50", "p95") if with_figures else ()), "reason"]
    table = _table(heads, len(seen.servers), most)
    found = [(each, seen.recent(each["name"])) for each in seen.servers]
    found.sort(key=lambda pair: (pair[0]["state"] == "ready", -pair[1].calls, pair[0]["name"]))
    for server, recent in found[:most]:
        figures = (f"{recent.per_second:.2f}", str(recent.errors or ""), _ms(recent.ms(0.5)), _ms(recent.ms(0.95)))
        table.add_row(
            escape(_cut(server["name"], most)),
            _state(server["state"], good=server["state"] == "ready"),
            str(server["counts"]["tools"]),
            *(figures if with_figures else ()),
            escape(_cut(_line(server.get("reason")), most)),
        )
    return table


def _workers(seen: Seen, most: int | None) -> Table:
    workers = seen.workers or ()
    table = _table(
        ("replica", "worker", "state", "revision", "sessions", "streams", "requests", "memory"), len(workers), most
    )
    newest = max((each["revision"] for each in workers), default=0)
    for each in workers[:most]:
        late = "catching up" if each["revision"] < newest else "current"
        table.add_row(
            escape(str(each["replica"])),
            escape(str(each["worker"])),
            _state(each["degraded"] or late, good=not each["degraded"] and late == "current"),
            *(str(each[name]) for name in ("revision", "sessions", "streams", "in_flight")),
            f"{each['memory'] >> 20} MiB",
        )
    return table


def _calls(seen: Seen, most: int | None) -> Table:
    shown = seen.calls[:most]
    table = _table(("time", "who", "server", "tool", "outcome", "gateway", "server took"), len(shown), None)
    for row in shown:
        table.add_row(
            datetime.fromisoformat(row["at"]).astimezone().strftime("%H:%M:%S"),
            *(escape(_cut(_line(row[name]), most)) for name in ("principal", "server", "tool")),
            _state(row["outcome"], good=row["outcome"] == "ok"),
            *(_ms(row[name]) for name in ("ms", "upstream_ms")),
        )
    if not seen.hello.get("has_calls", True):
        table.caption = "calls are not recorded here (GATEWAY_AUDIT)"
    elif not shown:
        table.caption = "no call yet"
    return table


def _table(heads: Iterable[str], count: int, most: int | None) -> Table:
    table = Table(*heads, box=None, expand=False, header_style="bold", pad_edge=False)
    if most is not None and count > most:
        table.caption = f"and {count - most} more"
    for column in table.columns:
        column.no_wrap, column.overflow = most is not None, "ellipsis"
        if column.header not in _WORDS:
            column.min_width = max(_FIGURE, len(str(column.header)))
    return table


def _state(text: str, *, good: bool) -> str:
    return f"[{'green' if good else 'red'}]{escape(_line(text))}[/]"


def _line(text: object) -> str:
    """Somebody else's words on one line."""
    return " ".join(clean(str(text or "")).split())


def _cut(text: str, most: int | None) -> str:
    """A text as a cell; on a screen it leaves room for the figures beside it."""
    return text if most is None or len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _ms(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms" if value < 10_000 else f"{value / 1e3:.0f} s"
