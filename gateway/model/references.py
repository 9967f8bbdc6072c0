"""References to secrets in a server's headers and variables: `${env:NAME}` and `${file:/run/secrets/name}`.

What is stored is the reference; its value is read where it is used (`access/references`). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from posixpath import normpath
from typing import Any

from gateway.errors import InvalidParams
from gateway.model.reference_texts import ANY, references_in
from gateway.model.server import ServerSpec

PREFIX = "GATEWAY_VALUE_"
_VARIABLE = re.compile(PREFIX + r"[A-Za-z0-9_]{1,200}")
_MAX_PATH = 1024


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference; `kind` is `env` or `file`."""

    kind: str
    name: str


def references(spec: ServerSpec) -> Iterator[tuple[str, str]]:
    """The references of a specification, as `(field, text between the braces)`."""
    for field, values in (("headers", spec.headers), ("env", spec.env)):
        for name, value in values.items():
            for found in ANY.finditer(value):
                yield f"{field}.{name}", found[1]
    for tool, override in spec.overrides.items():
        for name, argument in override.get("arguments", {}).items():
            for text in references_in(argument.get("value")):
                yield f"overrides.{tool}.arguments.{name}.value", text


def check_references(spec: ServerSpec, folder: str) -> None:
    """Refuse references that lead elsewhere than they may; `folder` is that of the files. Raises InvalidParams."""
    for field, text in references(spec):
        kind, _, name = text.partition(":")
        if kind == "env" and _VARIABLE.fullmatch(name):
            continue
        if kind == "env":
            raise InvalidParams(f"${{env:…}} reads variables that begin with {PREFIX}, not {name[:64]!r}.", field)
        if kind == "file" and len(name) <= _MAX_PATH and name == normpath(name) and name.startswith(f"{folder}/"):
            continue
        if kind == "file":
            raise InvalidParams(f"${{file:…}} reads files below {folder} (GATEWAY_SECRETS_DIR) only.", field)
        raise InvalidParams("A reference is ${env:NAME} or ${file:PATH}.", field)


def filled_value(value: Any, value_of: Callable[[Reference], str]) -> Any:
    """The same JSON value with each reference in its texts replaced by what it leads to."""
    if isinstance(value, str):
        return filled({"": value}, value_of)[""]
    if isinstance(value, Mapping):
        return {name: filled_value(each, value_of) for name, each in value.items()}
    return [filled_value(each, value_of) for each in value] if isinstance(value, list) else value


def filled(values: Mapping[str, str], value_of: Callable[[Reference], str]) -> dict[str, str]:
    """The same values with each reference replaced by what it leads to; what is none stays as it is."""

    def replaced(found: re.Match[str]) -> str:
        kind, _, name = found[1].partition(":")
        return value_of(Reference(kind, name)) if kind in ("env", "file") else found[0]

    return {name: ANY.sub(replaced, value) for name, value in values.items()}
