"""`mcp-gateway toolsets …`: tools of several servers at an address of their own."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.markup import escape
from rich.table import Table

from gateway.cli.client import Remote, toolset_path
from gateway.cli.rules import read_json, rule_of
from gateway.cli.terminal import AsJson, Key, Url, asking, print_json, print_table, say, text_of

toolsets = typer.Typer(no_args_is_help=True, help="Tools of several servers at an address of their own.")

_STATES = {"ready": "[green]ready[/]", "incomplete": "[yellow]incomplete[/]", "disabled": "[dim]disabled[/]"}

Slug = Annotated[str, typer.Argument(help="the toolset's slug, as in its address")]
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="SERVER[:TOOL]", help="what it holds, with * and ?; may be repeated"),
]
IncludeTag = Annotated[list[str] | None, typer.Option(metavar="TAG", help="all of servers with this tag")]
Exclude = Annotated[list[str] | None, typer.Option(metavar="SERVER[:TOOL]", help="what it does not hold all the same")]
File = Annotated[
    str | None, typer.Option("--file", metavar="FILE", help="fields as JSON, with all that REST takes; - for input")
]
Title = Annotated[str | None, typer.Option(help="its name for people")]
Description = Annotated[str | None, typer.Option(help="what it is for")]
Instructions = Annotated[str | None, typer.Option(help="what a model is told at this address")]
Mode = Annotated[str | None, typer.Option(metavar="WORD", help="how MCP lists its tools: full, search or auto")]
Pin = Annotated[list[str] | None, typer.Option("--pin", metavar="TOOL", help="listed in any mode; may be repeated")]
Names = Annotated[str | None, typer.Option(metavar="WORD", help="bare: without the servers' prefixes; prefixed")]


@toolsets.command("list")
def list_toolsets(
    server: Annotated[str | None, typer.Option(help="only those that hold something of this server")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the toolsets."""
    with asking(url, key, as_json) as to:
        query = "" if server is None else f"?{urlencode({'server': server})}"
        found = to.remote.ask("GET", f"/mcp/toolsets{query}")
        if to.as_json:
            print_json(found)
            return
    table = Table("slug", "state", "tools", "servers", "what for")
    for each in found["toolsets"]:
        said = each["description"] or each["title"] or ""
        state = _STATES.get(each["state"], each["state"])
        cells = [", ".join(each["servers"]), said]
        table.add_row(escape(each["slug"]), state, str(each["counts"]["tools"]), *map(escape, cells))
    print_table(table)


@toolsets.command("show")
def show_toolset(slug: Slug, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show all that is known of one toolset, and its tools."""
    with asking(url, key, as_json) as to:
        found = to.remote.ask("GET", toolset_path(slug))
        if to.as_json:
            print_json(found)
            return
        tools = [] if not found["enabled"] else to.remote.ask("GET", f"{toolset_path(slug)}/tools")["tools"]
    table = Table("field", "value", show_header=False)
    for field, value in found.items():
        table.add_row(field, text_of(value))
    table.add_row("tools", escape("\n".join(tool["name"] for tool in tools)))
    print_table(table)


@toolsets.command("add")
def add_toolset(
    slug: Slug,
    include: Include = None,
    include_tag: IncludeTag = None,
    exclude: Exclude = None,
    names: Names = None,
    mode: Mode = None,
    pin: Pin = None,
    title: Title = None,
    description: Description = None,
    instructions: Instructions = None,
    file: File = None,
    replace: Annotated[bool, typer.Option("--replace", help="replace a toolset that has this slug")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make a toolset: `toolsets add research --include 'docs:search*' --include-tag public`."""
    fields = _fields(include, include_tag, exclude, names, mode, pin, title, description, instructions, file)
    with asking(url, key, as_json) as to:
        if replace:
            made = to.remote.ask("PUT", toolset_path(slug), fields)
        else:
            made = to.remote.ask("POST", "/mcp/toolsets", {**fields, "slug": slug})
        _say(to.remote, made, "there", as_json=to.as_json)


@toolsets.command("update")
def update_toolset(
    slug: Slug,
    include: Include = None,
    include_tag: IncludeTag = None,
    exclude: Exclude = None,
    names: Names = None,
    mode: Mode = None,
    pin: Pin = None,
    title: Title = None,
    description: Description = None,
    instructions: Instructions = None,
    file: File = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Change some fields of a toolset; those that are not named stay. Rules are replaced as a whole."""
    fields = _fields(include, include_tag, exclude, names, mode, pin, title, description, instructions, file)
    if not fields:
        raise typer.BadParameter("name at least one field to change")
    _change(slug, fields, "changed", url, key, as_json)


@toolsets.command("enable")
def enable_toolset(slug: Slug, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Switch a toolset on."""
    _change(slug, {"enabled": True}, "enabled", url, key, as_json)


@toolsets.command("disable")
def disable_toolset(slug: Slug, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Switch a toolset off; it stays known."""
    _change(slug, {"enabled": False}, "disabled", url, key, as_json)


@toolsets.command("remove")
def remove_toolset(slug: Slug, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Forget a toolset; its servers stay as they are."""
    with asking(url, key, as_json) as to:
        answer = to.remote.ask("DELETE", toolset_path(slug))
        print_json(answer) if to.as_json else typer.echo(f"{slug} is removed")


def _change(slug: str, fields: dict[str, Any], done: str, url: str | None, key: str | None, as_json: bool) -> None:
    with asking(url, key, as_json) as to:
        _say(to.remote, to.remote.ask("PATCH", toolset_path(slug), fields), done, as_json=to.as_json)


def _say(remote: Remote, toolset: Any, done: str, *, as_json: bool) -> None:
    if as_json:
        print_json(toolset)
        return
    count = toolset["counts"]["tools"]
    where = f"{remote.url}/mcp/toolsets/{toolset['slug']}/mcp"
    say(f"{toolset['slug']} is {done}, with {count} tool{'' if count == 1 else 's'}, at {where}")
    for problem in toolset["problems"]:
        typer.echo(problem, err=True)


def _fields(
    include: list[str] | None,
    include_tag: list[str] | None,
    exclude: list[str] | None,
    names: str | None,
    mode: str | None,
    pin: list[str] | None,
    title: str | None,
    description: str | None,
    instructions: str | None,
    file: str | None,
) -> dict[str, Any]:
    """The fields that were given; options come on top of a file's."""
    fields = {} if file is None else read_json(file)
    if not isinstance(fields, dict):
        raise typer.BadParameter(f"{file} has no JSON object")
    given: dict[str, Any] = {"names": names, "mode": mode, "pinned": pin, "title": title}
    given |= {"description": description, "instructions": instructions}
    fields |= {field: value for field, value in given.items() if value is not None}
    if include or include_tag:
        fields["include"] = [rule_of(each) for each in include or ()] + [{"tags": [each]} for each in include_tag or ()]
    if exclude:
        fields["exclude"] = [rule_of(each) for each in exclude]
    return fields
