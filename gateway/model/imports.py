"""Servers as other products' files have them, read into registrations. Pure; nothing is stored here.

Taken: Claude Desktop, Claude Code, Cursor and Windsurf (`mcpServers`), VS Code (`servers`, also below `mcp`), Zed
(`context_servers`), the registry's `server.json`, LiteLLM (`mcp_servers` of config.yaml), ContextForge's export
(`entities.gateways`), and what `mcp-gateway export` writes (`import_formats`). JSON may have comments and trailing
commas, as editors write it. What can't be taken is named in notes.

Variables: `${env:X}`, `${X}`, `${X:-default}` and LiteLLM's `os.environ/X` are one: a value that is given, else the
reference `${env:X}`, which headers and variables may hold. `${input:x}` needs a value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import InvalidParams
from gateway.model.import_formats import FORMATS, CanNot, Convert, Fields, text_of

_MAX_SERVERS = 1_000
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_JSONC = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[}\]])')
_REFERRING = ("headers", "env")
_EDITORS = frozenset({"workspaceFolder", "userHome", "workspaceFolderBasename", "pathSeparator", "cwd"})


@dataclass(frozen=True, slots=True)
class Imported:
    """One server of a file."""

    name: str
    """As the gateway takes it."""
    given: str
    """As the file has it."""
    fields: Mapping[str, Any]
    """Of a registration."""
    notes: tuple[str, ...] = ()
    """What of it can't be taken, and why."""
    variables: tuple[str, ...] = ()
    """What stays open: `env:X`, `input:x`."""
    needed: tuple[str, ...] = ()
    """Of these, what must have a value before it can be registered."""


@dataclass(frozen=True, slots=True)
class ImportFile:
    """What a file holds."""

    format: str
    servers: tuple[Imported, ...]
    notes: tuple[str, ...] = field(default=())


def read_import(text: str, values: Mapping[str, str] | None = None) -> ImportFile:
    """Read a file of one of the formats; `values` are those of variables. Raises InvalidParams with line and column."""
    document = read_document(text)
    for name, find in FORMATS.items():
        if (found := find(document)) is not None:
            given, notes, convert = found
            if len(given) > _MAX_SERVERS:
                raise InvalidParams(f"The file has {len(given)} servers; at most {_MAX_SERVERS} are taken.", "text")
            taken: dict[str, None] = {}
            servers = [_server(each, value, convert, values or {}, taken) for each, value in given]
            return ImportFile(name, tuple(servers), tuple(notes))
    raise InvalidParams(
        "This is none of the files that can be imported: it has no 'mcpServers', 'servers', 'context_servers', "
        "'mcp_servers', 'entities', and is no server.json.",
        "text",
    )


# --- text -------------------------------------------------------------------------------------------------------------


def read_document(text: str) -> Mapping[str, Any]:
    """Read JSON (with comments and trailing commas) or YAML that holds an object. Raises InvalidParams."""
    stripped = text.lstrip("\ufeff \t\r\n")
    value = _json(text.lstrip("\ufeff")) if stripped[:1] in ("{", "[", "/") else _yaml(text)
    if not isinstance(value, Mapping):
        raise InvalidParams("The file must hold an object.", "text")
    return value


def _json(text: str) -> Any:
    """JSON with comments and trailing commas; blanks take their place, so that lines and columns stay."""
    keep = re.compile(r"[^\n]")

    def blank(found: re.Match[str]) -> str:
        return found[0] if found[0].startswith('"') else keep.sub(" ", found[0])

    try:
        return json.loads(_TRAILING.sub(blank, _JSONC.sub(blank, text)), object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidParams(f"The file is not JSON: {error.msg} at {where}.", "text") from None
    except RecursionError:
        raise InvalidParams("The file is nested too deeply.", "text") from None


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidParams(f"The name {name[:100]!r} stands twice in one place of the file.", "text")
        found[name] = value
    return found


def _yaml(text: str) -> Any:
    import yaml  # for one format only

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            _once([(str(self.construct_object(key)), None) for key, _ in node.value])
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)  # noqa: S506  # it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InvalidParams(f"The file is not YAML: {error.problem}{where}.", "text") from None
    except (yaml.YAMLError, RecursionError):
        raise InvalidParams("The file is neither JSON nor YAML.", "text") from None


# --- one server -------------------------------------------------------------------------------------------------------


def _server(given: str, value: Any, convert: Convert, values: Mapping[str, str], taken: dict[str, None]) -> Imported:
    name = _OTHER.sub("-", given).strip("-._")[:63].rstrip("-._") or "server"
    number, base = 2, name
    while name in taken:
        name = f"{base[:60]}-{number}"
        number += 1
    taken[name] = None
    if not isinstance(value, Mapping):
        return Imported(name, given, {}, ("It is no object.",))
    try:
        fields, notes = convert(value)
    except CanNot as error:
        return Imported(name, given, {}, (str(error),))
    if name != given:
        notes.insert(0, f"Its name {given[:100]!r} becomes {name!r}.")
    filled, open_variables, needed, more = _filled(fields, values)
    return Imported(
        name,
        given,
        {key: each for key, each in filled.items() if each not in (None, "", [], {})},
        (*notes, *more),
        tuple(dict.fromkeys(open_variables)),
        tuple(dict.fromkeys(needed)),
    )


def _filled(fields: Fields, values: Mapping[str, str]) -> tuple[Fields, list[str], list[str], list[str]]:
    """The same fields with variables' values; which stay open, which of them need a value, and what can't be taken."""
    still_open: list[str] = []
    needed: list[str] = []
    notes: list[str] = []

    def replaced(text: str, *, may_refer: bool) -> str:
        def value(found: re.Match[str]) -> str:
            kind, colon, name = found[1].partition(":")
            if kind == "file" and colon:
                return found[0]
            if kind not in ("env", "input") or not colon:
                bare, has_default, default = found[1].partition(":-")
                if not _NAME.fullmatch(bare) or bare in _EDITORS:
                    notes.append(f"{found[0]} is known to the editor alone; write what it stands for.")
                    return found[0]
                if has_default and f"env:{bare}" not in values:
                    return default
                kind, name = "env", bare
            variable = f"{kind}:{name}"
            if variable in values:
                return values[variable]
            still_open.append(variable)
            if kind == "input" or not may_refer:
                needed.append(variable)
            return f"${{{variable}}}"

        return _VARIABLE.sub(value, text)

    found: Fields = {}
    for name, each in fields.items():
        may_refer = name in _REFERRING
        if isinstance(each, str) and name in ("url", "command", "cwd"):
            found[name] = replaced(each, may_refer=False)
        elif isinstance(each, list) and name == "args":
            found[name] = [replaced(str(item), may_refer=False) for item in each]
        elif isinstance(each, Mapping) and may_refer:
            found[name] = {str(key): replaced(text_of(item), may_refer=True) for key, item in each.items()}
        else:
            found[name] = each
    return found, still_open, needed, notes
