"""Rules of grants and toolsets as options say them, and as files have them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer


def rule_of(text: str) -> dict[str, Any]:
    """`docs` and `docs:search*` as a rule; a server's name has no colon."""
    if not text.strip(": "):
        raise typer.BadParameter(f"{text!r} names nothing; '*' is everything")
    server, colon, tool = text.partition(":")
    if colon and not tool:
        raise typer.BadParameter(f"{text!r} names no tool after the colon; {server!r} alone is all of the server")
    return {"servers": [server or "*"]} | ({"tools": [tool]} if tool else {})


def read_json(file: str) -> Any:
    """What a file, or standard input (`-`), has as JSON."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        return json.loads(text)
    except OSError as error:
        raise typer.BadParameter(f"{file} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise typer.BadParameter(f"{file} is not JSON: {error}") from None
