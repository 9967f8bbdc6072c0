"""`mcp-gateway servers …`: what an administrator does with the registered servers."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperCommand

from gateway.cli.api_documents import Exclude, Include, OpenApi, document_fields, show_preview
from gateway.cli.client import Exit, Remote, server_path
from gateway.cli.terminal import AsJson, Key, ServerName, Url, asking, print_json, print_table, say, text_of

servers = typer.Typer(no_args_is_help=True, help="The registered servers.")

_STATES = {
    "starting": "[yellow]starting[/]", "ready": "[green]ready[/]", "unreachable": "[red]unreachable[/]",
    "disabled": "[dim]disabled[/]",
}  # fmt: skip
_PREVIEWED = ("name", "url", "spec", "spec_url", "include", "exclude", "headers")
_LOCKS = ("warn", "enforce", "off")
_WAIT_SECONDS = 40.0
_LOOK_SECONDS, _MAX_LOOK_SECONDS = 0.3, 3.0

Description = Annotated[str | None, typer.Option(help="what it is for")]
Title = Annotated[str | None, typer.Option(help="its name for people")]
Header = Annotated[
    list[str] | None, typer.Option("--header", "-H", help="'Name: value', sent to the server; may be repeated")
]
Env = Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, for a program; may be repeated")]
Cwd = Annotated[str | None, typer.Option(help="where a program runs")]
Prefix = Annotated[str | None, typer.Option(help="instead of its name in public tool names")]
Timeout = Annotated[float | None, typer.Option(help="seconds for a call")]
Tag = Annotated[list[str] | None, typer.Option(help="a label; may be repeated")]
Transport = Annotated[str | None, typer.Option("--transport", "-t", help="http, sse or rest; found out by itself")]
LimitsOption = Annotated[
    str | None,
    typer.Option(
        "--limits", metavar="JSON", help='for all callers: {"calls_per_second": 10, "concurrent": 8}; {} for none'
    ),
]
Trust = Annotated[
    bool | None,
    typer.Option(
        "--trust-annotations/--no-trust-annotations",
        help="believe what it says of its tools (readOnlyHint and so on) where grants ask for it",
        show_default=False,
    ),
]
Lock = Annotated[
    str | None,
    typer.Option(
        "--lock", metavar="WORD", help="when it changes a tool: warn, enforce (not called until approved), off"
    ),
]
Validate = Annotated[
    bool | None,
    typer.Option("--validate-arguments/--no-validate-arguments", help="check arguments against the tools' schemas"),
]


@servers.command("list")
def list_servers(
    tag: Annotated[str | None, typer.Option(help="only those with this label")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the servers with their state."""
    with asking(url, key, as_json) as to:
        found = to.remote.ask("GET", "/mcp/servers" + (f"?tag={quote(tag, safe='')}" if tag else ""))
        if to.as_json:
            print_json(found)
            return
    table = Table("name", "state", "tools", "url or program", "reason")
    for server in found["servers"]:  # a user's key is not told where they are
        state, reason = _STATES.get(server["state"], server["state"]), server["reason"] or _to_approve(server)
        where = server.get("url") or " ".join([server.get("command", ""), *server.get("args", ())])
        table.add_row(escape(server["name"]), state, str(server["counts"]["tools"]), escape(where), escape(reason))
    print_table(table)


@servers.command("show")
def show_server(name: ServerName, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show all that is known of one server."""
    with asking(url, key, as_json) as to:
        server = to.remote.ask("GET", server_path(name))
        if to.as_json:
            print_json(server)
            return
    table = Table("field", "value", show_header=False)
    for field, value in server.items():
        table.add_row(field, text_of(value))
    print_table(table)


class _AddCommand(TyperCommand):
    """`servers add`, which tells an option of the program from one of its own where `--` was forgotten."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [each for each in args if not each.startswith("-")]
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # typer keeps its class of an option that is not there to itself
            option = getattr(error, "option_name", None)
            if option is None or getattr(error, "possibilities", None) or len(words) < 2:
                raise
            raise typer.BadParameter(
                f"there is no option {option}. If it is the program's, put `--` before the program: "
                f"servers add {words[0]} -- {words[1]} {option} …"
            ) from None


@servers.command("add", cls=_AddCommand)
def add_server(
    name: Annotated[str | None, typer.Argument(help="the server's name")] = None,
    place: Annotated[
        list[str] | None,
        typer.Argument(metavar="URL | -- PROGRAM [ARG …]", help="its MCP address, or the program that is the server"),
    ] = None,
    command: Annotated[str | None, typer.Option(help="a program that speaks MCP over its pipes (stdio)")] = None,
    arg: Annotated[list[str] | None, typer.Option(help="an argument of the program; may be repeated")] = None,
    env: Env = None,
    cwd: Cwd = None,
    title: Title = None,
    description: Description = None,
    header: Header = None,
    prefix: Prefix = None,
    timeout: Timeout = None,
    tag: Tag = None,
    transport: Transport = None,
    validate_arguments: Validate = None,
    trust_annotations: Trust = None,
    limits: LimitsOption = None,
    lock: Lock = None,
    openapi: OpenApi = None,
    include: Include = None,
    exclude: Exclude = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show the tools that --openapi would give")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="replace a server that has this name")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="do not wait until it told what it offers")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Register a server: `servers add docs https://docs.example/mcp`, `servers add files -- npx -y PACKAGE DIR`.

    An API's URL need not be named where its document says it: `servers add pets --openapi pets.yaml`.
    """
    place = place or []
    if dry_run and openapi is None:
        raise typer.BadParameter("only a document is previewed; name it with --openapi", param_hint="--dry-run")
    if dry_run and name is not None and "://" in name and not place:
        place, name = [name], None
    if name is None:
        if not dry_run:
            raise typer.BadParameter("name the server", param_hint="NAME")
        name = "preview"
    is_program = command is not None or len(place) > 1 or "--" in sys.argv
    if openapi is not None and is_program:
        raise typer.BadParameter("a program has no OpenAPI document", param_hint="--openapi")
    if "--" not in sys.argv and command is None and place:
        _check_place(name, place)
    if command is not None and place:
        raise typer.BadParameter("name either a URL or a program", param_hint="URL")
    if not is_program and len(place) != 1 and openapi is None:
        wanted = "name the server's URL after its name, or a program after `--`"
        raise typer.BadParameter(f"{wanted} (`--url` is the gateway's)" if url else wanted, param_hint="URL")
    if is_program and command is None:
        if not place:
            raise typer.BadParameter("name a program after `--`", param_hint="PROGRAM")
        command, arg = place[0], place[1:]
    spec: dict[str, Any] = {"name": name}
    if command is not None:
        spec |= {"transport_type": "stdio", "command": command, "args": arg or []}
    elif place:
        spec |= {"url": place[0]}
    spec |= document_fields(openapi, include, exclude)
    spec |= _fields(
        env,
        cwd,
        title,
        description,
        header,
        prefix,
        timeout,
        tag,
        transport,
        validate_arguments,
        trust_annotations,
        limits,
        lock,
    )
    with asking(url, key, as_json) as to:
        if dry_run:
            previewed = {field: each for field, each in spec.items() if field in _PREVIEWED}
            shown = to.remote.ask("POST", "/mcp/openapi/preview", previewed)
            print_json(shown) if to.as_json else show_preview(shown)
            return
        if replace:
            spec |= _kept_lock(to.remote, name, spec)
        how, where = ("PUT", server_path(name)) if replace else ("POST", "/mcp/servers")
        stored = to.remote.ask(how, where, spec)
        if stored["state"] == "starting" and not no_wait:
            stored = _first_look(to.remote, name, stored)
        if to.as_json:
            print_json(stored)
        elif stored["state"] == "ready":
            typer.echo(f"{name} is ready with {_tools(stored)}")
        elif stored["state"] == "starting":
            typer.echo(f"{name} is registered and still starting; `servers show {name}` says when it is ready")
        else:
            say(f"{name} is registered, but {stored['state']}: {stored['reason'] or 'it was switched off'}")
            what = "…" if command is not None else "--server-url URL"
            typer.echo(f"`servers update {name} {what}` corrects it, `servers remove {name}` forgets it.", err=True)
    if stored["state"] == "unreachable":
        raise typer.Exit(Exit.FAILED)


@servers.command("update")
def update_server(
    name: ServerName,
    server_url: Annotated[str | None, typer.Option("--server-url", help="another address")] = None,
    command: Annotated[str | None, typer.Option(help="another program")] = None,
    arg: Annotated[list[str] | None, typer.Option(help="its arguments; may be repeated")] = None,
    env: Env = None,
    cwd: Cwd = None,
    title: Title = None,
    description: Description = None,
    header: Header = None,
    prefix: Prefix = None,
    timeout: Timeout = None,
    tag: Tag = None,
    transport: Transport = None,
    validate_arguments: Validate = None,
    trust_annotations: Trust = None,
    limits: LimitsOption = None,
    lock: Lock = None,
    openapi: OpenApi = None,
    include: Include = None,
    exclude: Exclude = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Change some fields of a server; those that are not named stay. Lists and headers are replaced as a whole."""
    changes = _fields(
        env,
        cwd,
        title,
        description,
        header,
        prefix,
        timeout,
        tag,
        transport,
        validate_arguments,
        trust_annotations,
        limits,
        lock,
    )
    changes |= document_fields(openapi, include, exclude)
    changes |= {} if server_url is None else {"url": server_url}
    changes |= {} if command is None else {"command": command}
    changes |= {} if arg is None else {"args": arg}
    if not changes:
        raise typer.BadParameter(
            "name at least one field to change (`--url` is the gateway's; `--server-url` the server's)"
        )
    server = _change(name, changes, "changed", url, key, as_json)
    if lock in ("warn", "enforce") and server is not None:
        waiting = f"; {server['changes']} wait to be approved" if server["changes"] else ""
        typer.echo(f"its lock is {lock}: what it was last seen to offer is approved{waiting}")


@servers.command("enable")
def enable_server(name: ServerName, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Switch a server on."""
    _change(name, {"enabled": True}, "enabled", url, key, as_json)


@servers.command("disable")
def disable_server(name: ServerName, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Switch a server off; it stays registered."""
    _change(name, {"enabled": False}, "disabled", url, key, as_json)


@servers.command("remove")
def remove_server(name: ServerName, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Forget a server."""
    with asking(url, key, as_json) as to:
        answer = to.remote.ask("DELETE", server_path(name))
        print_json(answer) if to.as_json else typer.echo(f"{name} is removed")


@servers.command("refresh")
def refresh_server(name: ServerName, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Ask a server now what it offers."""
    with asking(url, key, as_json) as to:
        server = to.remote.ask("POST", f"{server_path(name)}/refresh")
        if to.as_json:
            print_json(server)
        else:
            say(f"{name} is {server['state']}: {server['reason'] or _tools(server)}")
    if server["state"] != "ready":
        raise typer.Exit(Exit.FAILED)


def _change(name: str, changes: dict[str, Any], done: str, url: str | None, key: str | None, as_json: bool) -> Any:
    """Change a server and say so; the server as it is then, or None where JSON was wanted."""
    with asking(url, key, as_json) as to:
        server = to.remote.ask("PATCH", server_path(name), changes)
        if to.as_json:
            print_json(server)
        else:
            reason = f" ({server['reason']})" if server["reason"] else ""
            say(f"{name} is {done}" + ("" if done == server["state"] else f"; it is {server['state']}{reason}"))
        return None if to.as_json else server


def _check_place(name: str, place: list[str]) -> None:
    """Tell a URL that is none, or a program without its dashes, by what it looks like."""
    if all(each.startswith(("http://", "https://")) for each in place) and len(place) > 1:
        raise typer.BadParameter("name one URL", param_hint="URL")
    first, words = place[0], " ".join(place).split()
    if " " in first:
        raise typer.BadParameter(f"a program? then: servers add {name} -- {' '.join(words)}", param_hint="URL")
    if len(place) == 1 and "://" not in first and re.fullmatch(r"[\w.-]+(:\d+)?(/.*)?", first):
        raise typer.BadParameter(f"a URL? then: http://{first}. A program? then: -- {first}", param_hint="URL")


def _first_look(remote: Remote, name: str, stored: Any) -> Any:
    """Wait until a new server was asked what it offers; a terminal shows that something happens."""
    deadline = time.monotonic() + _WAIT_SECONDS
    console, pause = Console(stderr=True), _LOOK_SECONDS
    if not console.is_terminal:
        typer.echo(f"{name} is starting", err=True)
    with console.status(f"{escape(name)} is starting"):
        while stored["state"] == "starting" and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(1.5 * pause, _MAX_LOOK_SECONDS)  # each look is a line in the gateway's log
            stored = remote.ask("GET", server_path(name))
    return stored


def _kept_lock(remote: Remote, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The lock of a server that is replaced, where nothing is said of it: what was approved stays approved."""
    if "lock" in spec:
        return {}
    known = {each["name"]: each for each in remote.ask("GET", f"/mcp/servers?server={quote(name, safe='')}")["servers"]}
    lock = known.get(name, {}).get("lock")
    if lock is None:
        return {}
    typer.echo(f"{name} keeps its lock ({lock}); `--lock off` takes it away", err=True)
    return {"lock": lock}


def _to_approve(server: Any) -> str:
    changes = server.get("changes")
    return f"{changes} to approve: `servers changes {server['name']}`" if changes else ""


def _tools(server: Any) -> str:
    count = server["counts"]["tools"]
    return f"{count} tool" + ("" if count == 1 else "s")


def _fields(
    env: list[str] | None,
    cwd: str | None,
    title: str | None,
    description: str | None,
    header: list[str] | None,
    prefix: str | None,
    timeout: float | None,
    tag: list[str] | None,
    transport: str | None,
    validate_arguments: bool | None,
    trust_annotations: bool | None,
    limits: str | None,
    lock: str | None,
) -> dict[str, Any]:
    """The fields of a registration that were given."""
    given = {
        "env": None if env is None else dict(_variable(each) for each in env),
        "cwd": cwd,
        "title": title,
        "description": description,
        "headers": None if header is None else dict(_header(each) for each in header),
        "prefix": prefix,
        "timeout_seconds": timeout,
        "tags": tag,
        "transport_type": transport,
        "validate_arguments": validate_arguments,
        "trust_annotations": trust_annotations,
        "limits": None if limits is None else _object(limits),
    }
    fields = {field: value for field, value in given.items() if value is not None}
    if lock is None:
        return fields
    if lock not in _LOCKS:
        raise typer.BadParameter(f"it is one of {', '.join(_LOCKS)}, not {lock!r}", param_hint="--lock")
    return fields | {"lock": None if lock == "off" else lock}


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{text!r} is not a JSON object", param_hint="--limits")
    return value


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
