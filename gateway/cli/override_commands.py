"""`mcp-gateway overrides …`: what callers see of a tool in place of what its server says, for all or in a toolset."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.table import Table

from gateway.cli.client import Exit, Refused, Remote, server_path, toolset_path
from gateway.cli.rules import read_json
from gateway.cli.terminal import AsJson, Key, ServerName, Url, asking, print_json, print_table, text_of

overrides = typer.Typer(no_args_is_help=True, help="What callers see of tools in place of what servers say.")

Tool = Annotated[str, typer.Argument(help="the tool, by the server's own name")]
InToolset = Annotated[str | None, typer.Option("--toolset", metavar="SLUG", help="in this toolset only")]


@overrides.command("set")
def set_override(
    server: ServerName,
    tool: Tool,
    name: Annotated[str | None, typer.Option(help="its name for callers")] = None,
    title: Annotated[str | None, typer.Option(help="its name for people")] = None,
    description: Annotated[str | None, typer.Option(help="what a model is told of it")] = None,
    off: Annotated[bool, typer.Option("--off", help="take it away")] = False,
    read_only: Annotated[
        bool | None, typer.Option("--read-only/--no-read-only", help="its readOnlyHint", show_default=False)
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="believe the hints that are given (administrators)")] = False,
    rename: Annotated[list[str] | None, typer.Option(metavar="ARGUMENT=NAME", help="may be repeated")] = None,
    describe: Annotated[list[str] | None, typer.Option(metavar="ARGUMENT=TEXT", help="may be repeated")] = None,
    default: Annotated[
        list[str] | None, typer.Option(metavar="ARGUMENT=VALUE", help="sent where callers send nothing; JSON or text")
    ] = None,
    value: Annotated[
        list[str] | None, typer.Option(metavar="ARGUMENT=VALUE", help="always sent; JSON or text; see --hide")
    ] = None,
    hide: Annotated[list[str] | None, typer.Option(metavar="ARGUMENT", help="not shown; may be repeated")] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="the override as JSON; - for input")
    ] = None,
    toolset: InToolset = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Override a tool; what was overridden of it before is replaced."""
    override: dict[str, Any] = {} if file is None else read_json(file)
    if not (isinstance(override, dict) and isinstance(override.get("arguments", {}), dict)):
        raise typer.BadParameter(f"{file} has no JSON object, as an override is")
    given = {"name": name, "title": title, "description": description, "enabled": False if off else None}
    override |= {field: each for field, each in given.items() if each is not None}
    if read_only is not None:
        override["annotations"] = {"readOnlyHint": read_only}
    if trust:
        override["trust"] = True
    arguments: dict[str, dict[str, Any]] = override.get("arguments", {})
    for pairs, field, read in (
        (rename, "name", str), (describe, "description", str), (default, "default", _json), (value, "value", _json)
    ):  # fmt: skip
        for argument, each in map(_pair, pairs or ()):
            arguments.setdefault(argument, {})[field] = read(each)
    for argument in hide or ():
        arguments.setdefault(argument, {})["hide"] = True
    if arguments:
        override["arguments"] = arguments
    if not override:
        raise typer.BadParameter("say what is to be another: --name, --description, --hide …")
    _change(server, toolset, lambda known: {**known, tool: override}, url, key, as_json)


@overrides.command("clear")
def clear_override(
    server: ServerName,
    tool: Tool,
    toolset: InToolset = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Take a tool's override away: it is as its server says again."""

    def without(known: dict[str, Any]) -> dict[str, Any]:
        if tool not in known:
            raise Refused(f"The tool {tool!r} of {server!r} has no override here.", Exit.FAILED)
        return {name: each for name, each in known.items() if name != tool}

    _change(server, toolset, without, url, key, as_json)


@overrides.command("show")
def show_overrides(
    server: ServerName, toolset: InToolset = None, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """Show the overrides of a server's tools, and what is wrong with them."""
    with asking(url, key, as_json) as to:
        document, known = _known(to.remote, server, toolset)
        if to.as_json:
            print_json({"overrides": known, "problems": document["problems"]})
            return
        table = Table("tool", "override")
        for tool, override in known.items():
            table.add_row(text_of(tool), text_of(override))
        print_table(table)
        for problem in document["problems"]:
            typer.echo(problem, err=True)


def _change(
    server: str,
    toolset: str | None,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    with asking(url, key, as_json) as to:
        document, known = _known(to.remote, server, toolset)
        changed = change(known)
        if toolset is None:
            done = to.remote.ask("PATCH", server_path(server), {"overrides": changed})
        else:
            every = {**document["overrides"], server: changed}
            fields = {"overrides": {name: each for name, each in every.items() if each}}
            done = to.remote.ask("PATCH", toolset_path(toolset), fields)
        if to.as_json:
            print_json(done)
            return
        count = len(changed)
        where = f"toolset {toolset}" if toolset else "all addresses"
        typer.echo(f"{count} tool{'' if count == 1 else 's'} of {server} now overridden, in {where}")
        for problem in done["problems"]:
            typer.echo(problem, err=True)


def _known(remote: Remote, server: str, toolset: str | None) -> tuple[Any, dict[str, Any]]:
    """The document that has a server's overrides, and these."""
    document = remote.ask("GET", server_path(server) if toolset is None else toolset_path(toolset))
    if "overrides" not in document:
        raise Refused("Overrides are shown to operators and administrators only.", Exit.FAILED)
    return document, document["overrides"] if toolset is None else document["overrides"].get(server, {})


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not ARGUMENT=…")
    return name, value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
