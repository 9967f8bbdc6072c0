"""`mcp-gateway lock write|check FILE`, and `servers changes|approve NAME`: tools that can't change unseen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.text import Text

from gateway.cli import lock_file
from gateway.cli.client import Exit, Refused, Remote, server_path
from gateway.cli.terminal import AsJson, Key, ServerName, Url, asking, clean, print_json
from gateway.model.hidden_text import in_one_line

lock = typer.Typer(no_args_is_help=True, help="A lock file: the digests of all tools, for version control.")

LockFile = Annotated[Path, typer.Argument(metavar="FILE", help="the lock file, mcp-tools.lock for example")]
Servers = Annotated[list[str] | None, typer.Option("--server", help="only this server; may be repeated")]
_WHAT = {"changed": "changed", "new": "is new", "gone": "is gone"}
_COLORS = {"+": "green", "-": "red", "@": "cyan"}


@lock.command("write")
def write_lock(
    file: LockFile,
    server: Servers = None,
    force: Annotated[bool, typer.Option("--force", help="also over a file that is no whole lock file")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write the digests of all tools that the enabled servers offer now."""
    with asking(url, key, as_json) as to:
        known = _read(file) if file.exists() and not force else {}
        offered = _offered(to.remote, server)
        _write(file, offered if not server else {**known, **offered})
        tools = sum(map(len, offered.values()))
        if to.as_json:
            print_json({"file": str(file), "servers": len(offered), "tools": tools})
        else:
            typer.echo(f"{file} has {_count(tools, 'tool')} of {_count(len(offered), 'server')}")


@lock.command("check")
def check_lock(
    file: LockFile,
    server: Servers = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="have the servers asked first what they offer now")
    ] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Compare what the servers offer with a lock file; exits with 5 if something differs."""
    with asking(url, key, as_json) as to:
        locked = _read(file)
        if server:
            locked = {name: tools for name, tools in locked.items() if name in server}
        drift = lock_file.compare(locked, _offered(to.remote, server, refresh=refresh, known=locked.keys()))
        if to.as_json:
            print_json({"drift": [_as_json(each) for each in drift]})
        else:
            for each in drift:
                typer.echo(_line(each))
            if not drift:
                typer.echo(f"all is as in {file}")
    if drift:
        if not to.as_json:
            where = f"{_count(len(drift), 'difference')} from {file}"
            only = "".join(f" --server {name}" for name in server or ())
            typer.echo(f"{where}; once you have looked at them, `lock write {file}{only}` takes them over", err=True)
        raise typer.Exit(Exit.DRIFT)


def list_changes(name: ServerName, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show what a server changed since it was approved, and what looks suspicious in what it offers."""
    with asking(url, key, as_json) as to:
        found = _changes(to.remote, name)
        if to.as_json:
            print_json(found)
        else:
            _show(found)


def approve_changes(
    name: ServerName,
    tool: Annotated[list[str] | None, typer.Argument(help="only these tools, by the server's own names")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask first")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Approve what a server changed, as it is shown; in a terminal you are asked first."""
    with asking(url, key, as_json) as to:
        found = _changes(to.remote, name)
        waiting = [each["tool"] for each in found["changes"]]
        for each in tool or ():
            if each not in waiting:
                listed = ", ".join(map(in_one_line, waiting[:10])) or "nothing"
                raise Refused(f"There is nothing to approve of {each!r}; what waits: {listed}.", Exit.FAILED)
        wanted = [each for each in found["changes"] if not tool or each["tool"] in tool]
        if not all(each["diff_is_whole"] for each in wanted) and not yes:
            raise Refused(
                f"Not all that differs can be shown in lines. Read `servers changes {name} --json` (before, after), "
                "then approve with --yes.",
                Exit.FAILED,
            )
        if not to.as_json:
            _show({**found, "changes": wanted})
        if wanted and sys.stdin.isatty() and not (yes or to.as_json):
            typer.confirm("Approve this?", abort=True)
        body = {"digest": found["digest"]} | ({"tools": tool} if tool else {})
        left = to.remote.ask("POST", f"{server_path(name)}/approve", body)
        if to.as_json:
            print_json(left)
        elif wanted:
            typer.echo(
                f"{_count(len(wanted), 'tool')} of {name} approved"
                + (f"; {left['total']} left" if left["total"] else "")
            )


def _offered(
    remote: Remote, wanted: list[str] | None, *, refresh: bool = False, known: Any = ()
) -> dict[str, lock_file.Tools]:
    """The digests of what servers offer: of all that are enabled, or of those that are wanted. Raises Refused."""
    servers = {each["name"]: each for each in remote.ask("GET", "/mcp/servers")["servers"]}
    for name in wanted or ():
        if name not in servers and name not in known:
            raise Refused(f"There is no server {name!r}; `servers list` shows what there is.", Exit.FAILED)
    offered: dict[str, lock_file.Tools] = {}
    for name, server in servers.items():
        if not server["enabled"] or (wanted and name not in wanted):
            continue
        found = remote.ask("POST" if refresh else "GET", f"{server_path(name)}/digests")
        reason = f": {found['reason']}" if found["reason"] else ""
        if found["tools"] is None:
            raise Refused(f"Server {name!r} was never asked with success what it offers{reason}", Exit.FAILED)
        if refresh and not found["is_fresh"]:
            raise Refused(f"Server {name!r} did not tell in time what it offers{reason}", Exit.FAILED)
        if found["state"] != "ready":
            typer.echo(clean(f"{name} is {found['state']}; what it offered last is taken"), err=True)
        offered[name] = found["tools"]
    return offered


def _changes(remote: Remote, name: str) -> Any:
    """All that is to be approved of a server, page after page."""
    found = page = remote.ask("GET", f"{server_path(name)}/changes?limit=1000")
    while page["next_cursor"] is not None:
        page = remote.ask("GET", f"{server_path(name)}/changes?limit=1000&cursor={quote(page['next_cursor'], safe='')}")
        found["changes"] += page["changes"]
    return found | {"next_cursor": None}


def _show(found: Any) -> None:
    """Changes for people: a line per tool, and the lines that differ."""
    console = Console(highlight=False, soft_wrap=True)
    for each in found["changes"]:
        console.print(Text(_heading(each), style="bold"))
        for line in each["diff"].split("\n") if each["diff"] else ():
            console.print(Text(f"  {in_one_line(line)}", style=_COLORS.get(line[:1], "")))
    for flag in found["flags"]:
        said = f"{flag['place']}: {flag['what'].replace('_', ' ')}: {flag['detail']}"
        console.print(Text(in_one_line(said), style="yellow"))
    if not found["changes"]:
        typer.echo(f"{found['server']}: nothing is to be approved" + ("" if found["lock"] else " (it has no lock)"))


def _heading(change: Any) -> str:
    doubted = ", ".join(f"{hint} {str(said['claimed']).lower()}" for hint, said in change.get("doubted", {}).items())
    effect = "" if change["effect"] == "none" else f", and is {change['effect']}"
    parts = f" ({', '.join(change['parts'])})" if change["parts"] else ""
    said = [] if change["what"] == "hints" else [f"{_WHAT[change['what']]}{parts}{effect}"]
    said += [f"claims what is not believed yet: {doubted}"] if doubted else []
    return f"{in_one_line(change['tool'])} {'; '.join(said)}"


def _line(drift: lock_file.Drift) -> str:
    if drift.tool is None:
        return f"{drift.server}: " + ("not in the file" if drift.what == "new" else "in the file, but not served")
    parts = f": {', '.join(drift.parts)}" if drift.parts else ""
    return f"{drift.server}: {in_one_line(drift.tool)} {_WHAT[drift.what]}{parts}"


def _as_json(drift: lock_file.Drift) -> dict[str, Any]:
    return {"server": drift.server, "tool": drift.tool, "what": drift.what, "parts": list(drift.parts)}


def _read(file: Path) -> dict[str, lock_file.Tools]:
    try:
        return lock_file.read(file)
    except lock_file.Unreadable as error:
        raise Refused(str(error), Exit.USAGE) from None


def _write(file: Path, servers: dict[str, lock_file.Tools]) -> None:
    try:
        lock_file.write(file, servers)
    except lock_file.Unreadable as error:
        raise Refused(str(error), Exit.USAGE) from None


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
