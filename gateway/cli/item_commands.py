"""`mcp-gateway tools …`, `resources …`, `prompts …`: what the servers offer, listed and used."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.cli.client import Exit, Refused, Remote, toolset_path
from gateway.cli.terminal import AsJson, Key, Url, asking, clean, print_json, print_table, say
from gateway.model.hidden_text import in_one_line

tools = typer.Typer(no_args_is_help=True, help="The tools of all servers.")
resources = typer.Typer(no_args_is_help=True, help="The resources of all servers.")
prompts = typer.Typer(no_args_is_help=True, help="The prompts of all servers.")

_SHOWN = 100  # characters of a description in a list

OfServer = Annotated[str | None, typer.Option("--server", help="only this server's")]
Words = Annotated[str | None, typer.Option("--search", "-q", help="only those with these words")]


@tools.command("list")
def list_tools(
    server: OfServer = None, words: Words = None, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """List the tools."""
    with asking(url, key, as_json) as to:
        found = _listed(to.remote, "tools", server, words)
        if to.as_json:
            print_json(found)
            return
    table = Table("tool", "arguments", "description")
    for tool in found["tools"]:
        wanted, properties = set(_required(tool["inputSchema"])), tool["inputSchema"].get("properties")
        names = [
            f"{name}*" if name in wanted else name for name in (properties if isinstance(properties, Mapping) else ())
        ]
        table.add_row(escape(tool["name"]), escape(", ".join(names)), _described(tool))
    print_table(table)


@tools.command("cost")
def cost_of_tools(
    toolset: Annotated[str | None, typer.Option(metavar="SLUG", help="of this toolset")] = None,
    server: OfServer = None,
    most: Annotated[int, typer.Option("--most", help="how many of the dearest tools are shown")] = 15,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show how many tokens the tools take of a model's context, so that one sees what to leave out. Estimated."""
    path = "/mcp/tools" if toolset is None else f"{toolset_path(toolset)}/tools"
    query = {"tokens": "true"} | ({"server": server} if server else {})
    with asking(url, key, as_json) as to:
        found = to.remote.ask("GET", f"{path}?{urlencode(query)}")
        sets = [] if toolset or server else to.remote.ask("GET", "/mcp/toolsets?tokens=true")["toolsets"]
        if to.as_json:
            print_json({"tokens": found["tokens"], "tools": {tool["name"]: tool["tokens"] for tool in found["tools"]},
                        "toolsets": {each["slug"]: each["tokens"] for each in sets}})  # fmt: skip
            return
    table = Table("what", "name", "tokens", "with tool search")
    totals = found["tokens"]
    table.add_row("all tools", "", f"{totals['full']:,}", f"{totals['search']:,}")
    for each in sets:
        table.add_row("toolset", escape(each["slug"]), f"{each['tokens']['full']:,}", f"{each['tokens']['search']:,}")
    for name, tokens in sorted(totals["servers"].items(), key=lambda pair: -pair[1]):
        table.add_row("server", escape(name), f"{tokens:,}", "")
    for tool in sorted(found["tools"], key=lambda tool: -tool["tokens"])[:most]:
        table.add_row("tool", escape(tool["name"]), f"{tool['tokens']:,}", "")
    print_table(table)


@tools.command("call")
def call_tool(
    name: Annotated[str, typer.Argument(help="the tool's public name, or its own where that is unique")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="field=value (JSON, or else text), or one JSON object, or - for stdin")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Call a tool; on a terminal its progress is shown while it runs, and what it needs and was not given is asked."""
    given = arguments or []
    with asking(url, key, as_json) as to:
        values, may_ask = _arguments(given), sys.stdin.isatty() and given != ["-"] and not to.as_json
        texts = dict(each.split("=", 1) for each in given if "=" in each)
        read = {field for field, value in values.items() if field in texts and not isinstance(value, str)}
        if read or may_ask:
            schemas = _schemas(to.remote, name)
            values |= {field: texts[field] for field in read if _is_text(field, schemas)}
            if may_ask and len(schemas) == 1:
                values |= ask_for(schemas[0], values)
        answer = _watched(to.remote, {"name": name, "arguments": values})
        result = answer["result"]
        if to.as_json:
            print_json(answer)
        else:
            for content in result.get("content", []):
                say(content.get("text") if content.get("type") == "text" else f"[{content.get('type')}]")
    if result.get("isError"):
        raise typer.Exit(Exit.FAILED)


@resources.command("list")
def list_resources(
    server: OfServer = None, words: Words = None, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """List the resources and their templates."""
    with asking(url, key, as_json) as to:
        found = _listed(to.remote, "resources", server, words)
        if to.as_json:
            print_json(found)
            return
    table = Table("uri", "server", "type", "description")
    for item in [*found["resources"], *found["resourceTemplates"]]:
        uri = item.get("uri") or item["uriTemplate"]
        table.add_row(escape(uri), escape(item["server"]), escape(item.get("mimeType") or ""), _described(item))
    print_table(table)


@resources.command("read")
def read_resource(
    uri: Annotated[str, typer.Argument(help="as the list shows it")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Read a resource: text as it is, anything else by its size."""
    with asking(url, key, as_json) as to:
        result = to.remote.ask("POST", "/mcp/resources/read", {"uri": uri})
        if to.as_json:
            print_json(result)
            return
        for content in result.get("contents", []):
            shown = content.get("text")
            if shown is None:
                shown = f"[{content.get('mimeType') or 'data'}, {len(content.get('blob', '')) * 3 // 4} bytes; --json]"
            say(shown)


@prompts.command("list")
def list_prompts(
    server: OfServer = None, words: Words = None, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """List the prompts."""
    with asking(url, key, as_json) as to:
        found = _listed(to.remote, "prompts", server, words)
        if to.as_json:
            print_json(found)
            return
    table = Table("prompt", "arguments", "description")
    for prompt in found["prompts"]:
        names = [
            f"{each['name']}*" if each.get("required") else str(each["name"]) for each in prompt.get("arguments") or []
        ]
        table.add_row(escape(prompt["name"]), escape(", ".join(names)), _described(prompt))
    print_table(table)


@prompts.command("get")
def get_prompt(
    name: Annotated[str, typer.Argument(help="the prompt's public name, or its own where that is unique")],
    arguments: Annotated[list[str] | None, typer.Argument(help="field=value, or one JSON object")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Get a prompt, filled in."""
    given = _arguments(arguments or [], lambda text: text)  # MCP: a prompt's arguments are strings
    with asking(url, key, as_json) as to:
        result = to.remote.ask("POST", "/mcp/prompts/get", {"name": name, "arguments": given})
        if to.as_json:
            print_json(result)
            return
        for message in result.get("messages", []):
            content = message.get("content") or {}
            shown = content.get("text") if content.get("type") == "text" else f"[{content.get('type')}]"
            say(f"{message.get('role')}: {shown}")


def _listed(remote: Remote, kind: str, server: str | None, words: str | None) -> Any:
    """A list, whole; a server that is not there is refused, and an empty list has its reason on standard error."""
    known = None if server is None else remote.ask("GET", f"/mcp/servers/{quote(server, safe='')}")
    asked = {name: value for name, value in (("server", server), ("q", words)) if value}
    found = remote.ask("GET", f"/mcp/{kind}" + (f"?{urlencode(asked)}" if asked else ""))
    if not found[kind]:
        why = "" if known is None or known["state"] == "ready" else f": server {server} is {known['state']}"
        typer.echo(f"no {kind}{' with these words' if words else ''}{why}", err=True)
    return found


def _described(item: Any) -> str:
    return escape(str(item.get("description") or item.get("title") or "").strip().partition("\n")[0][:_SHOWN])


def _schemas(remote: Remote, name: str) -> list[Mapping[str, Any]]:
    """What the tools of this name take; several where it is the own name of several servers' tools."""
    found = remote.ask("GET", f"/mcp/tools?{urlencode({'q': name.rpartition('__')[2]})}")["tools"]
    return [tool["inputSchema"] for tool in found if tool["name"] == name or tool["name"].endswith(f"__{name}")]


def _is_text(field: str, schemas: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a field is declared as a string: then it is the text that it was given as."""
    return bool(schemas) and all(_property(schema, field).get("type") == "string" for schema in schemas)


def _property(schema: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    properties = schema.get("properties")
    found = properties.get(field) if isinstance(properties, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def ask_for(schema: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Ask on the terminal for what a schema requires and `values` lack, one after the other, until it fits."""
    found: dict[str, Any] = {}
    for field in _required(schema):
        if field not in values and field not in found:
            found[field] = _ask_for_one(field, _property(schema, field))
    return found


def _ask_for_one(field: str, declared: Mapping[str, Any]) -> Any:
    """One value; what a server says of it stands on one line each, and is no command for the terminal."""
    kinds = [kind] if isinstance(kind := declared.get("type"), str) else kind if isinstance(kind, list) else []
    choices, default = declared.get("enum"), declared.get("default")
    if description := declared.get("description"):
        typer.echo(_shown(description), err=True)
    said = f"one of {json.dumps(choices)}" if isinstance(choices, list) else " or ".join(map(str, kinds)) or "JSON"
    shown = "" if default is None else f" [{_shown(default if isinstance(default, str) else json.dumps(default))}]"
    while True:
        enter = None if default is None else ""  # which takes the default; without one it is asked again
        text = typer.prompt(f"{_shown(field)} ({_shown(said)}){shown}", default=enter, show_default=False, err=True)
        for value in _readings(text, kinds) if text else [default]:
            if isinstance(choices, list):
                fits = any(value == each and isinstance(value, bool) is isinstance(each, bool) for each in choices)
            else:
                fits = not kinds or any(_fits(value, kind) for kind in kinds)
            if fits:
                return value
        typer.echo(f"It takes {_shown(said)}.", err=True)


def _readings(text: str, kinds: Sequence[Any]) -> list[Any]:
    """What a text may mean, the likelier first; nothing of what can't be sent."""
    if not text.isprintable():
        return []
    value = _json_or_text(text)
    if "string" in kinds and not any(_fits(value, kind) for kind in kinds if kind != "string"):
        return ["" if text == '""' else text]
    return [value, text]


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type of JSON Schema; of an unknown one it is the server's to say."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return is_number and value % 1 == 0
        case "number":
            return is_number
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case "string":
            return isinstance(value, str)
        case "null":
            return value is None
        case _:
            return True


def _shown(text: Any) -> str:
    """A server's words, cut to a line."""
    return in_one_line(clean(str(text)[:_SHOWN]))


def _json_or_text(text: str) -> Any:
    """JSON, or else the text itself; what JSON can't carry further (NaN, 1e999) is a text."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


def _required(schema: Mapping[str, Any]) -> list[str]:
    """The names that a schema requires, as far as it is sound."""
    found = schema.get("required")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _arguments(given: list[str], read: Callable[[str], Any] = _json_or_text) -> dict[str, Any]:
    if given == ["-"]:
        given = [sys.stdin.read()]
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        try:
            value = json.loads(given[0])
            json.dumps(value, allow_nan=False)
        except (ValueError, RecursionError) as error:
            raise typer.BadParameter(f"not valid JSON: {error}", param_hint="ARGUMENTS") from None
        return dict(value)
    found: dict[str, Any] = {}
    for each in given:
        field, equals, text = each.partition("=")
        if not equals:
            raise typer.BadParameter(f"{each!r} is not field=value", param_hint="ARGUMENTS")
        found[field] = read(text)
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
                    bar.update(task, completed=done, total=total, description=escape(clean(str(said))))
                case "log":
                    bar.console.print(escape(clean(f"{event.data.get('level')}: {event.data.get('data')}")))
                case "error":
                    raise Refused(str(event.data.get("detail")), Exit.FAILED, event.data)
                case "result":
                    return event.data
    raise Refused("The stream ended without a result; the call may have been carried out.", Exit.FAILED)
