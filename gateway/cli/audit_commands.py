"""`mcp-gateway audit …`: who called and changed what, as it happens or as a file."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from gateway.cli.client import Remote
from gateway.cli.terminal import AsJson, Key, Url, asking, say

audit = typer.Typer(no_args_is_help=True, help="Who called and changed what.")

_AGAIN_SECONDS = 1.0
_UNITS = {"m": 60, "h": 3600, "d": 86_400}
_FIELDS = (
    "at", "kind", "principal", "key_id", "method", "address", "server", "tool", "outcome", "ms", "upstream_ms",
    "bytes", "request_id", "replica", "arguments_digest", "arguments", "target", "before", "after",
)  # fmt: skip

Kind = Annotated[str | None, typer.Option(help="call or change")]
Principal = Annotated[str | None, typer.Option(help="a key's name")]
Server = Annotated[str | None, typer.Option(help="a server's name")]
Tool = Annotated[str | None, typer.Option(help="a tool's name, as its server has it")]
Outcome = Annotated[
    str | None,
    typer.Option(help="ok, tool_error, refused, limited, cancelled, timeout, unreachable, unknown or error"),
]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="30m, 12h, 7d ago, or 2027-01-31T00:00:00Z")]


@audit.command("tail")
def tail(
    kind: Kind = None,
    principal: Principal = None,
    server: Server = None,
    tool: Tool = None,
    outcome: Outcome = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000, help="so many to begin with")] = 10,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="go on as more come")] = True,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Print the newest rows, and those that come, oldest first; until it is interrupted."""
    asked = _asked(kind, principal, server, tool, outcome, None)
    with asking(url, key, as_json) as to:
        seen: set[str] = set()
        newest = to.remote.ask("GET", f"/audit?{urlencode({**asked, 'limit': lines})}")["rows"]
        while True:
            for row in reversed(newest):
                text = json.dumps(row, sort_keys=True)
                if text not in seen:
                    say(text if to.as_json else _line(row))
            if not follow:
                return
            seen = {json.dumps(row, sort_keys=True) for row in newest} or seen
            since = newest[0]["at"] if newest else datetime.now(UTC).isoformat()
            time.sleep(_AGAIN_SECONDS)
            found = list(_rows(to.remote, asked | {"since": since}))
            newest = found or newest


@audit.command("export")
def export(
    kind: Kind = None,
    principal: Principal = None,
    server: Server = None,
    tool: Tool = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="the same")] = None,
    form: Annotated[str, typer.Option("--format", help="ndjson or csv")] = "ndjson",
    url: Url = None,
    key: Key = None,
) -> None:
    """Print all rows that are asked for, newest first, as lines of JSON or as CSV."""
    if form not in ("ndjson", "csv"):
        raise typer.BadParameter("the formats are ndjson and csv", param_hint="--format")
    asked = _asked(kind, principal, server, tool, outcome, since)
    if until is not None:
        asked["until"] = _time(until)
    with asking(url, key, False) as to:
        rows = _rows(to.remote, asked)
        if form == "ndjson":
            for row in rows:
                typer.echo(json.dumps(row, ensure_ascii=False))
            return
        writer = csv.DictWriter(sys.stdout, _FIELDS, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(row.get(name)) for name in _FIELDS})


def _asked(
    kind: str | None,
    principal: str | None,
    server: str | None,
    tool: str | None,
    outcome: str | None,
    since: str | None,
) -> dict[str, str]:
    given = {"kind": kind, "principal": principal, "server": server, "tool": tool, "outcome": outcome}
    asked = {name: value for name, value in given.items() if value is not None}
    return asked if since is None else asked | {"since": _time(since)}


def _time(text: str) -> str:
    """A time as the gateway takes it; `7d` is so long ago."""
    if text[:-1].isdecimal() and text[-1:] in _UNITS and len(text) < 10:
        return (datetime.now(UTC) - timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])).isoformat()
    return text


def _rows(remote: Remote, asked: dict[str, str]) -> Iterator[dict[str, Any]]:
    """All rows that are asked for, over all pages, newest first."""
    query = asked | {"limit": "1000"}
    while True:
        page = remote.ask("GET", f"/audit?{urlencode(query)}")
        yield from page["rows"]
        if page["next_cursor"] is None:
            return
        query["cursor"] = page["next_cursor"]


def _line(row: dict[str, Any]) -> str:
    who = f"{row['at'][:19]} {row['principal']}"
    if row["kind"] == "change":
        return f"{who} {row['method']} {row['target']}{_difference(row['before'], row['after'])}"
    where = "/".join(filter(None, (row["server"], row["tool"]))) or row["address"] or ""
    return f"{who} {row['method']} {where} {row['outcome']} {row['ms'] + (row['upstream_ms'] or 0):.1f} ms"


def _difference(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    if before is None or after is None:
        return ""
    changed = [name for name in after if after[name] != before.get(name)]
    return "".join(f" {name}={json.dumps(after[name], ensure_ascii=False)}" for name in changed)


def _cell(value: Any) -> Any:
    """A value as a cell: nested ones as JSON, and no text that a spreadsheet would take for a formula."""
    text = value if isinstance(value, str | int | float | None) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if isinstance(text, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
