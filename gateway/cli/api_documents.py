"""`--openapi` of `servers add` and `servers update`: a document as fields of a registration, and its preview."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gateway.cli.terminal import print_table
from gateway.model.hidden_text import in_one_line

OpenApi = Annotated[
    str | None,
    typer.Option("--openapi", metavar="FILE|URL", help="the server is an API that this OpenAPI document describes"),
]
Include = Annotated[
    list[str] | None,
    typer.Option("--include", help="of an API only these: names, tag:NAME, 'GET /path*'; may be repeated"),
]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", help="of an API not these; may be repeated")]


def document_fields(openapi: str | None, include: list[str] | None, exclude: list[str] | None) -> dict[str, Any]:
    """The fields of a registration that were given. Raises BadParameter for a file that can't be read."""
    fields: dict[str, Any] = {}
    if openapi is not None:
        is_url = openapi.startswith(("http://", "https://"))
        fields |= {"spec_url": openapi} if is_url else {"spec": _read(Path(openapi))}
    return fields | {name: each for name, each in (("include", include), ("exclude", exclude)) if each is not None}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file} is not UTF-8", param_hint="--openapi") from None
    except OSError as error:
        raise typer.BadParameter(f"{file} can't be read: {error.strerror}", param_hint="--openapi") from None


def show_preview(shown: Any) -> None:
    """Print what a document would give: a tool or a reason for each operation."""
    table = Table("tool", "operation", "tokens", "what it does")
    for tool in shown["tools"]:
        cells = (tool["name"], tool["operation"], str(tool["tokens"]), tool.get("title", ""))
        table.add_row(*(escape(in_one_line(cell)) for cell in cells))
    if shown["tools"]:
        print_table(table)
    if shown["left_out"]:
        left_out = Table("left out", "why")
        for each in shown["left_out"]:
            left_out.add_row(escape(in_one_line(each["operation"])), escape(in_one_line(each["reason"])))
        print_table(left_out)
    for each in shown["warnings"]:
        typer.echo(in_one_line(each), err=True)
    asks = [" ".join(filter(None, map(each.get, ("type", "scheme", "in", "name")))) for each in shown["security"]]
    if asks:
        typer.echo(f"It asks for {in_one_line(' or '.join(asks))}: send it with `--header`.", err=True)
    title = in_one_line(f"{shown['title']} {shown['version']} (OpenAPI {shown['openapi']}) at {shown['base_url']}")
    count = len(shown["tools"])
    typer.echo(
        f"{title}: {count} tool{'' if count == 1 else 's'}, {shown['tokens']} tokens, "
        f"{len(shown['left_out'])} operations left out; nothing was registered"
    )
