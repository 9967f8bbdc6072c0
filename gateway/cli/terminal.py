"""What all commands that ask a gateway share: where it is, how they print, and how a refusal ends them.

Options may stand before the command or after it; those after it win. A refusal speaks of commands, not of HTTP.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.cli.client import Refused, Remote

DEFAULT_URL = "http://localhost:4000"
_PIPE_WIDTH = 200
_OPTIONS = {
    "transport_type": "--transport", "timeout_seconds": "--timeout", "headers": "--header", "tags": "--tag",
    "args": "--arg", "env": "--env", "cwd": "--cwd", "prefix": "--prefix", "title": "--title",
    "description": "--description", "validate_arguments": "--validate-arguments",
    "trust_annotations": "--trust-annotations",
    "limits": "--limits", "lock": "--lock", "spec": "--openapi", "spec_url": "--openapi", "include": "--include",
    "exclude": "--exclude",
}  # fmt: skip
"""The options that set a field of a registration; what the gateway says of the field is said of the option."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

Url = Annotated[str | None, typer.Option("--url", help=f"where the gateway is (GATEWAY_URL; {DEFAULT_URL})")]
Key = Annotated[str | None, typer.Option("--key", help="the key to ask with (GATEWAY_KEY, GATEWAY_MASTER_KEY)")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
ServerName = Annotated[str, typer.Argument(help="the server's name")]


@dataclass(frozen=True, slots=True)
class Options:
    """What stood before the command, or in the environment."""

    url: str
    key: str | None
    as_json: bool


_before: ContextVar[Options] = ContextVar("options", default=Options(DEFAULT_URL, None, False))  # noqa: B039  # frozen


def set_options(options: Options) -> None:
    """Remember what stood before the command, for the command that follows."""
    _before.set(options)


@dataclass(frozen=True, slots=True)
class Asking:
    """One command's way to the gateway, and whether it prints JSON."""

    remote: Remote
    as_json: bool


@contextmanager
def asking(url: str | None, key: str | None, as_json: bool) -> Iterator[Asking]:
    """Ask a gateway; what it refuses ends the command with one line (or the problem) and the code of its kind."""
    before = _before.get()
    as_json = as_json or before.as_json
    try:
        with closing(Remote(url or before.url, key or before.key)) as remote:
            yield Asking(remote, as_json)
    except Refused as error:
        if as_json:
            typer.echo(json.dumps(error.problem))
        else:
            typer.echo(f"mcp-gateway: {clean(_in_our_words(error))}", err=True)
        raise typer.Exit(error.code) from None


def print_json(value: Any) -> None:
    """Print a document for scripts."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(table: Table) -> None:
    """Print a table; what is too wide for the terminal wraps, and nothing is cut."""
    for column in table.columns:
        column.overflow = "fold"
        column._cells = [clean(cell) if isinstance(cell, str) else cell for cell in column._cells]
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False).print(table)


def clean(text: str) -> str:
    """A server's words without what a terminal would take for a command; lines and tabs stay."""
    return _CONTROL.sub("\ufffd", text)


def say(text: object) -> None:
    """Print a server's words; a script gets them as they are."""
    typer.echo(clean(str(text)) if sys.stdout.isatty() else text)


def text_of(value: Any) -> str:
    """A value as a cell of a table."""
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _in_our_words(error: Refused) -> str:
    """The same refusal for somebody who has commands."""
    problem: Mapping[str, Any] = error.problem
    server = problem.get("server")
    match str(problem.get("type", "")).rpartition(":")[2]:
        case "server-already-registered":
            return (
                f"A different server is registered as {server!r}. `servers add {server} … --replace` replaces it, "
                f"`servers update {server} …` changes single fields."
            )
        case "server-disabled":
            return f"Server {server!r} is disabled; `servers enable {server}` switches it on."
        case "tool-changed":
            return (
                f"Server {server!r} changed {problem.get('tool')!r} since it was approved, so it is not called: "
                f"`servers changes {server}` shows the change, `servers approve {server}` approves it."
            )
        case "changed-since":
            return f"Server {server!r} changed what it offers meanwhile: look at `servers changes {server}` again."
        case "server-sealed":
            return f"{str(error).partition(':')[0]}: add that secret to GATEWAY_SECRET, or remove and add the server."
        case "toolset-already-there":
            return (
                f"A different toolset is there as {problem.get('toolset')!r}. `toolsets add … --replace` replaces it, "
                "`toolsets update …` changes single fields."
            )
        case "toolset-disabled":
            toolset = problem.get("toolset")
            return f"Toolset {toolset!r} is disabled; `toolsets enable {toolset}` switches it on."
        case ("unknown-tool" | "unknown-prompt" | "unknown-resource" | "unknown-server" | "unknown-toolset") as unknown:
            kind = unknown.removeprefix("unknown-")
            near = problem.get("did_you_mean")
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            return f"{str(error).partition('. ')[0]}.{meant} `{kind}s list` shows what there is."
    field = str(problem.get("field", "")).partition(".")[0]
    return (
        str(error).replace(f"'{field}'", _OPTIONS[field]).replace(f"`{field}`", _OPTIONS[field])
        if field in _OPTIONS
        else str(error)
    )
