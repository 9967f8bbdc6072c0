"""The commands that ask a running gateway: `servers`, `tools`, `check`. Tables for people, `--json` for scripts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway import check as checks
from gateway.remote import Exit, Refused, Remote

servers = typer.Typer(no_args_is_help=True, help="The registered servers.")
tools = typer.Typer(no_args_is_help=True, help="The tools of all servers.")

Url = Annotated[str, typer.Option("--url", envvar="GATEWAY_URL", help="where the gateway is")]
Key = Annotated[
    str | None,
    typer.Option(
        "--key", envvar=["GATEWAY_MASTER_KEY", "LITELLM_MASTER_KEY"], help="the gateway's key", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Name = Annotated[str, typer.Argument(help="the server's name")]
_URL = "http://localhost:4000"

_STATES = {"ready": "[green]ready[/]", "unreachable": "[red]unreachable[/]", "disabled": "[dim]disabled[/]"}


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """What the gateway refuses ends the command, with one line or the problem, and the code that says which kind."""
    try:
        yield
    except Refused as error:
        if as_json:
            typer.echo(json.dumps(error.problem))
        else:
            typer.echo(f"mcp-gateway: {error}", err=True)
        raise typer.Exit(error.code) from None


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


@servers.command("list")
def servers_list(url: Url = _URL, key: Key = None, as_json: AsJson = False) -> None:
    """List the servers with their state."""
    with _errors(as_json):
        found = Remote(url, key).ask("GET", "/mcp/servers")
    if as_json:
        _print_json(found)
        return
    table = Table("name", "state", "tools", "url or program", "reason")
    for server in found["servers"]:
        state, reason = _STATES.get(server["state"], server["state"]), server["reason"] or ""
        where = server.get("url") or " ".join([server["command"], *server["args"]])
        table.add_row(escape(server["name"]), state, str(server["counts"]["tools"]), escape(where), escape(reason))
    _console().print(table)


@servers.command("show")
def servers_show(name: Name, url: Url = _URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show all that is known of one server."""
    with _errors(as_json):
        server = Remote(url, key).ask("GET", f"/mcp/servers/{quote(name, safe='')}")
    if as_json:
        _print_json(server)
        return
    table = Table("field", "value", show_header=False)
    for field, value in server.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        table.add_row(field, escape(text))
    _console().print(table)


@servers.command("add")
def servers_add(
    name: Name,
    server_url: Annotated[
        str | None, typer.Argument(metavar="[SERVER_URL]", help="the server's MCP address; none for a program")
    ] = None,
    command: Annotated[str | None, typer.Option(help="a program that speaks MCP over its pipes (stdio)")] = None,
    arg: Annotated[list[str] | None, typer.Option(help="an argument of the program; may be repeated")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, for the program; may be repeated")] = None,
    cwd: Annotated[str | None, typer.Option(help="where the program runs")] = None,
    description: Annotated[str, typer.Option(help="what it is for")] = "",
    header: Annotated[list[str] | None, typer.Option(help="'Name: value', sent to the server; may be repeated")] = None,
    prefix: Annotated[str | None, typer.Option(help="instead of its name in public tool names")] = None,
    timeout: Annotated[float | None, typer.Option(help="seconds for a call")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="a label; may be repeated")] = None,
    transport: Annotated[str | None, typer.Option(help="http, sse or rest; found out by itself")] = None,
    validate_arguments: Annotated[
        bool, typer.Option("--validate-arguments", help="check arguments against the tools' schemas here")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="replace a server that has this name")] = False,
    url: Url = _URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Register a server."""
    if (server_url is None) == (command is None):
        raise typer.BadParameter("name either the server's URL or a --command", param_hint="SERVER_URL")
    spec: dict[str, Any] = {"name": name, "description": description, "tags": tag or []}
    if server_url is not None:
        spec |= {"url": server_url, "headers": dict(_header(each) for each in header or [])}
    else:
        spec |= {"transport_type": "stdio", "command": command, "args": arg or [], "cwd": cwd}
        spec |= {"env": dict(_variable(each) for each in env or [])}
    spec |= {} if prefix is None else {"prefix": prefix}
    spec |= {} if timeout is None else {"timeout_seconds": timeout}
    spec |= {} if transport is None else {"transport_type": transport}
    spec |= {"validate_arguments": True} if validate_arguments else {}
    with _errors(as_json):
        remote = Remote(url, key)
        path = f"/mcp/servers/{quote(name, safe='')}"
        stored = remote.ask("PUT", path, spec) if replace else remote.ask("POST", "/mcp/servers", spec)
    if as_json:
        _print_json(stored)
    elif stored["state"] == "ready":
        typer.echo(f"{name} is ready with {stored['counts']['tools']} tools")
    else:
        typer.echo(f"{name} is registered, but {stored['state']}: {stored['reason']}")


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise typer.BadParameter(f"{name!r} is not 'Name: value'", param_hint="--header")
    return name.strip(), value.strip()


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{name!r} is not NAME=VALUE", param_hint="--env")
    return name, value


@servers.command("remove")
def servers_remove(name: Name, url: Url = _URL, key: Key = None, as_json: AsJson = False) -> None:
    """Forget a server."""
    with _errors(as_json):
        answer = Remote(url, key).ask("DELETE", f"/mcp/servers/{quote(name, safe='')}")
    _print_json(answer) if as_json else typer.echo(f"{name} is removed")


@servers.command("refresh")
def servers_refresh(name: Name, url: Url = _URL, key: Key = None, as_json: AsJson = False) -> None:
    """Ask a server now what it offers."""
    with _errors(as_json):
        server = Remote(url, key).ask("POST", f"/mcp/servers/{quote(name, safe='')}/refresh")
    if as_json:
        _print_json(server)
    else:
        typer.echo(f"{name} is {server['state']}: {server['reason'] or str(server['counts']['tools']) + ' tools'}")
    if server["state"] != "ready":
        raise typer.Exit(Exit.FAILED)


@tools.command("list")
def tools_list(
    server: Annotated[str | None, typer.Option(help="only this server's")] = None,
    url: Url = _URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the tools of all servers."""
    with _errors(as_json):
        remote = Remote(url, key)
        found = remote.ask("GET", "/mcp/tools")
        if server is not None:
            remote.ask("GET", f"/mcp/servers/{quote(server, safe='')}")  # refuses a name that is not there
    found["tools"] = [tool for tool in found["tools"] if server in (None, tool["server"])]
    if as_json:
        _print_json(found)
        return
    table = Table("tool", "arguments", "description")
    for tool in found["tools"]:
        wanted = set(tool["inputSchema"].get("required", ()))
        names = [f"{name}*" if name in wanted else name for name in tool["inputSchema"].get("properties", {})]
        said = (tool.get("description") or "").strip().partition("\n")[0]
        table.add_row(escape(tool["name"]), escape(", ".join(names)), escape(said[:100]))
    _console().print(table)


@tools.command("call")
def tools_call(
    name: Annotated[str, typer.Argument(help="the tool's public name, or its own where that is unique")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="field=value (JSON, or else text), or one JSON object, or - for stdin")
    ] = None,
    url: Url = _URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Call a tool; on a terminal its progress is shown while it runs."""
    body = {"name": name, "arguments": _arguments(arguments or [])}
    with _errors(as_json):
        answer = _watched(Remote(url, key), body)
    result = answer["result"]
    if as_json:
        _print_json(answer)
    else:
        for content in result.get("content", []):
            shown = content.get("text") if content.get("type") == "text" else f"[{content.get('type')}]"
            typer.echo(shown)
    if result.get("isError"):
        raise typer.Exit(Exit.FAILED)


def _arguments(given: list[str]) -> dict[str, Any]:
    if given == ["-"]:
        given = [sys.stdin.read()]
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        try:
            value = json.loads(given[0])
        except ValueError as error:
            raise typer.BadParameter(f"not valid JSON: {error}", param_hint="ARGUMENTS") from None
        return dict(value)
    found: dict[str, Any] = {}
    for each in given:
        field, equals, text = each.partition("=")
        if not equals:
            raise typer.BadParameter(f"{each!r} is not field=value", param_hint="ARGUMENTS")
        try:
            found[field] = json.loads(text)
        except ValueError:
            found[field] = text
    return found


def _watched(remote: Remote, body: Any) -> Any:
    """Call a tool and show its progress on standard error; return the result's document."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(body["name"], total=None)
        for event in remote.events("/mcp/tools/call", body):
            match event.name:
                case "progress":
                    done, total = event.data.get("progress", 0), event.data.get("total")
                    said = event.data.get("message") or body["name"]
                    bar.update(task, completed=done, total=total, description=escape(str(said)))
                case "log":
                    bar.console.print(escape(f"{event.data.get('level')}: {event.data.get('data')}"))
                case "error":
                    raise Refused(str(event.data.get("detail")), Exit.FAILED, event.data)
                case "result":
                    return event.data
    raise Refused("The stream ended without a result; the call may have been carried out.", Exit.FAILED)


def check(url: Url = _URL, key: Key = None, as_json: AsJson = False) -> None:
    """Check the gateway, its stores, its servers and the way through the load balancer; says what to fix."""
    with _errors(as_json):
        findings = list(checks.run(Remote(url, key), os.environ))
    if as_json:
        _print_json([{"what": each.what, "well": each.well, "said": each.said, "fix": each.fix} for each in findings])
    else:
        table = Table("", "what", "found", "what to do", title=f"Check of {url}")
        for each in findings:
            mark = "[green]ok[/]" if each.well else "[red]no[/]"
            table.add_row(mark, escape(each.what), escape(each.said), escape(each.fix))
        _console().print(table)
    if wrong := [each.code for each in findings if not each.well]:
        raise typer.Exit(max(wrong))
