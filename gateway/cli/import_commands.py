"""`mcp-gateway import FILE`, `export`, and `client-config CLIENT`: what people have, and what their clients need."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gateway.cli.client import Exit, Refused, server_path, toolset_path
from gateway.cli.terminal import AsJson, Key, Url, asking, print_json, print_table
from gateway.model.hidden_text import in_one_line

_ACTIONS = {
    "add": "[green]+ add[/]", "change": "[yellow]~ change[/]", "same": "[dim]= same[/]", "skip": "[red]! not taken[/]",
    "refused": "[red]! refused[/]",
}  # fmt: skip


def import_servers(
    file: Annotated[Path, typer.Argument(help="mcp.json, config.yaml, server.json, an export; - for standard input")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would be done")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="change servers that are there and differ")] = False,
    resolve: Annotated[
        bool, typer.Option("--resolve", help="take ${env:X} from this environment; else it stays a reference")
    ] = False,
    value: Annotated[
        list[str] | None, typer.Option("--value", help="NAME=VALUE, of ${input:NAME} or ${NAME}; may be repeated")
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="only this server; may be repeated")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Take the servers of a file of Claude, Cursor, VS Code, Windsurf, Zed, LiteLLM, ContextForge or a registry."""
    with asking(url, key, as_json) as to:
        text = _read(file)
        asked: dict[str, Any] = {"text": text, "replace": replace} | ({"only": only} if only else {})
        looked = to.remote.ask("POST", "/mcp/import", asked | {"dry_run": True})
        values = values_of(looked, value or (), resolve=resolve, may_ask=not to.as_json)
        done = to.remote.ask("POST", "/mcp/import", asked | {"dry_run": dry_run, "values": values})
        if to.as_json:
            print_json(done)
        else:
            _show(done, file, dry_run=dry_run)
    if any("problem" in each for each in done["servers"]):
        raise typer.Exit(Exit.FAILED)


def export_servers(url: Url = None, key: Key = None) -> None:
    """Print all servers and toolsets as JSON, without secrets; `apply` takes it, and `import` takes the servers."""
    with asking(url, key, as_json=True) as to:
        print_json(to.remote.ask("GET", "/mcp/export"))


def client_config(
    client: Annotated[str, typer.Argument(help="claude-code, claude-desktop, cursor, vscode, windsurf, zed, curl")],
    server: Annotated[str | None, typer.Option(help="one server's own address, not that of all")] = None,
    toolset: Annotated[str | None, typer.Option(metavar="SLUG", help="a toolset's address")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Print what a client needs to connect to this gateway; the key stands there as $KEY or YOUR_KEY."""
    with asking(url, key, as_json=False) as to:
        if server is not None and toolset is not None:
            raise Refused("Name a server or a toolset, not both.", Exit.USAGE)
        path = "" if server is None else server_path(server).removeprefix("/mcp")
        path = path if toolset is None else toolset_path(toolset).removeprefix("/mcp")
        address = f"{to.remote.url}/mcp{path}{'/mcp' if path else ''}"
        if client not in _CLIENTS:
            raise Refused(f"There is no client {client!r}; there are {', '.join(_CLIENTS)}.", Exit.USAGE)
        if client == "curl" and path:
            raise Refused("curl asks all servers at once; leave --server and --toolset out.", Exit.USAGE)
        made = _CLIENTS[client](address)
        typer.echo(made if isinstance(made, str) else json.dumps(made, indent=2))


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise Refused(f"{file} is not UTF-8.", Exit.USAGE) from None
    except OSError as error:
        raise Refused(f"{file} can't be read: {error.strerror}.", Exit.USAGE) from None


def values_of(looked: Mapping[str, Any], given: Any, *, resolve: bool, may_ask: bool) -> dict[str, str]:
    """The values of a file's variables: those that were given, from the environment, or asked for on a terminal."""
    named: dict[str, str] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals:
            raise Refused(f"--value {name!r} is not NAME=VALUE.", Exit.USAGE)
        named[name] = text
    values: dict[str, str] = {}
    for variable in (*looked["variables"], *looked["optional"]):
        kind, _, name = variable.partition(":")
        if name in named:
            values[variable] = named[name]
        elif kind == "env" and resolve:
            if name not in os.environ:
                if variable in looked["optional"]:
                    continue
                raise Refused(f"{name} is not set in this environment; set it, or give --value {name}=…", Exit.USAGE)
            values[variable] = os.environ[name]
        elif kind == "input" and may_ask and sys.stdin.isatty():
            values[variable] = typer.prompt(f"value of {in_one_line(name)}", hide_input=True)
    if unused := named.keys() - {variable.partition(":")[2] for variable in values}:
        raise Refused(f"The file has no variable {', '.join(sorted(unused))}.", Exit.USAGE)
    return values


def _show(done: Any, file: Path, *, dry_run: bool) -> None:
    table = Table("", "server", "where", "what changes, and what can't be taken")
    for each in done["servers"]:
        server = each.get("server") or {}
        where = server.get("url") or " ".join([server.get("command") or "", *server.get("args", ())])
        said = [each["problem"]] if "problem" in each else []
        said += [", ".join(each["changes"])] if each.get("changes") else []
        cells = (each["name"], where, "\n".join([*said, *each["notes"]]))
        table.add_row(_ACTIONS.get(each["action"], each["action"]), *(escape(_lines(cell)) for cell in cells))
    table.title = f"{file}: {done['format']}"
    if done["servers"]:
        print_table(table)
    for note in done["notes"]:
        typer.echo(in_one_line(note), err=True)
    counts = {action: sum(each["action"] == action for each in done["servers"]) for action in ("add", "change", "same")}
    words = f"{counts['add']} added, {counts['change']} changed, {counts['same']} the same"
    left = sum("problem" in each for each in done["servers"])
    typer.echo(f"{'would be ' if dry_run else ''}{words}" + (f", {left} not taken" if left else ""))


def _lines(text: str) -> str:
    return "\n".join(map(in_one_line, text.split("\n")))


def _remote(url: str) -> Mapping[str, Any]:
    return {"url": url, "headers": {"Authorization": "Bearer YOUR_KEY"}}


_BRIDGE = ["-y", "mcp-remote"]
_CLIENTS: Mapping[str, Any] = {
    "claude-code": lambda url: f'claude mcp add --transport http gateway {url} --header "Authorization: Bearer $KEY"',
    "claude-desktop": lambda url: {
        "mcpServers": {
            "gateway": {
                "command": "npx",
                "args": [*_BRIDGE, url, "--header", "Authorization:${AUTH}"],
                "env": {"AUTH": "Bearer YOUR_KEY"},
            }
        }
    },
    "cursor": lambda url: {"mcpServers": {"gateway": _remote(url)}},
    "vscode": lambda url: {"servers": {"gateway": {"type": "http", **_remote(url)}}},
    "windsurf": lambda url: {
        "mcpServers": {"gateway": {"serverUrl": url, "headers": {"Authorization": "Bearer YOUR_KEY"}}}
    },
    "zed": lambda url: {"context_servers": {"gateway": _remote(url)}},
    "curl": lambda url: (
        f'curl -H "Authorization: Bearer $KEY" -H "Accept: application/json" {url.removesuffix("/mcp")}/mcp/tools'
    ),
}
