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
from typing import Any, ClassVar

import orjson

from gateway.errors import InvalidParams
from gateway.model.import_formats import FORMATS, CanNot, Convert, Fields, text_of

_MAX_SERVERS = 1_000
_MAX_TEXT = 512 << 10
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
# what is not closed goes on to the end: no character is read twice
_JSONC = re.compile(r'"(?:[^"\\]|\\.)*+"?|//[^\n]*+|/\*(?:.*?\*/|.*+)', re.DOTALL)
_TOKENS = re.compile(r'[{}\[\]]|(?P<string>"(?:[^"\\]|\\.)*+")(?P<colon>\s*+:)?', re.DOTALL)
_TRAILING = re.compile(r'"(?:[^"\\]|\\.)*+"?|,(?=\s*+[}\]])', re.DOTALL)
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
    optional: tuple[str, ...] = ()
    """Those that have a default, which they take without a value."""
    needed: tuple[str, ...] = ()
    """Of `variables`, what must have a value before it can be registered."""


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
    """Read JSON (with comments and trailing commas) or YAML that holds an object. Raises InvalidParams.

    All of it is what JSON can carry. Takes its time with long YAML (seconds for the longest): not for the event loop.
    """
    if len(text) > _MAX_TEXT:
        raise InvalidParams(f"The file is too long; at most {_MAX_TEXT >> 10} KiB are read.", "text")
    stripped = text.lstrip("\ufeff \t\r\n")
    value = _json(text.lstrip("\ufeff")) if stripped[:1] in ("{", "[", "/") else _yaml(text)
    if not isinstance(value, Mapping):
        raise InvalidParams("The file must hold an object.", "text")
    try:
        orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError as error:
        raise InvalidParams(f"The file holds what JSON can't carry: {error}.", "text") from None
    return value


def _json(text: str) -> Any:
    """JSON with comments and trailing commas; blanks take their place, so that lines and columns stay."""
    keep = re.compile(r"[^\n]")

    def blank(found: re.Match[str]) -> str:
        return found[0] if found[0].startswith('"') else keep.sub(" ", found[0])

    try:
        plain = _TRAILING.sub(blank, _JSONC.sub(blank, text))
        return json.loads(plain, object_pairs_hook=_once)
    except _Twice as error:
        raise _twice(error.name, *_second(plain, error.name)) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidParams(f"The file is not JSON: {error.msg} at {where}.", "text") from None
    except RecursionError:
        raise InvalidParams("The file is nested too deeply.", "text") from None
    except ValueError:
        raise InvalidParams("The file holds a number that is too long.", "text") from None


class _Twice(Exception):
    """A name that stands twice in one object."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _twice(name: str, line: int, column: int) -> InvalidParams:
    at = f"line {line}, column {column}"
    return InvalidParams(f"The name {name[:100]!r} stands twice in one place of the file: again at {at}.", "text")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Twice(name)
        found[name] = value
    return found


def _second(text: str, name: str) -> tuple[int, int]:
    """Line and column of the first member whose object has had one of this name. The text is JSON, at least so far."""
    seen: list[bool] = []  # for each open object or list: whether the name stood there
    for token in _TOKENS.finditer(text):
        if token[0] in "{[":
            seen.append(False)
        elif token[0] in "}]":
            seen.pop()
        elif token["colon"] and json.loads(token["string"]) == name:
            if seen[-1]:
                before = text[: token.start()]
                return before.count("\n") + 1, token.start() - before.rfind("\n")
            seen[-1] = True
    raise AssertionError("it was found twice")


def _yaml(text: str) -> Any:
    import yaml  # for one format only

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Without times (`2022-11-28` is a text) and without aliases, which make gigabytes of a line."""

        yaml_implicit_resolvers: ClassVar = {
            first: [each for each in found if each[0] != "tag:yaml.org,2002:timestamp"]
            for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark
                raise yaml.composer.ComposerError(None, None, "aliases are not taken", mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names: set[str] = set()
            for key, _ in node.value:
                name = str(self.construct_object(key))
                if name in names:
                    raise _twice(name, key.start_mark.line + 1, key.start_mark.column + 1)
                names.add(name)
            return {str(key): value for key, value in super().construct_mapping(node, deep).items()}

    try:
        return yaml.load(text, Loader)  # noqa: S506  # it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InvalidParams(f"The file is not YAML: {error.problem}{where}.", "text") from None
    except (yaml.YAMLError, RecursionError, ValueError, TypeError):
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
        filled, used = _filled(fields, values)
    except CanNot as error:
        return Imported(name, given, {}, (str(error),))
    except (TypeError, ValueError, KeyError, AttributeError):  # a member of another kind than the format has
        return Imported(name, given, {}, ("It is not as its format has it.",))
    if name != given:
        notes.insert(0, f"Its name {given[:100]!r} becomes {name!r}.")
    if fields.get("name", given) != given:
        notes.append("The name among its fields is not taken.")
    return Imported(
        name,
        given,
        {key: each for key, each in filled.items() if is_told(key, each)},
        (*notes, *used.notes),
        tuple(dict.fromkeys(used.still_open)),
        tuple(dict.fromkeys(used.optional)),
        tuple(dict.fromkeys(used.needed)),
    )


def is_told(field: str, value: Any) -> bool:
    """Whether a field says anything: an empty prefix is none, and others that are empty have their default."""
    return field == "prefix" if value == "" else value not in (None, [], {})


@dataclass(slots=True)
class _Used:
    """The variables of a server: which stay open, which of them need a value, which have a default; and notes."""

    still_open: list[str] = field(default_factory=list)
    needed: list[str] = field(default_factory=list)
    optional: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _filled(fields: Fields, values: Mapping[str, str]) -> tuple[Fields, _Used]:
    """The same fields with variables' values, and what was found of variables."""
    used = _Used()

    def replaced(text: str, *, may_refer: bool) -> str:
        def value(found: re.Match[str]) -> str:
            kind, colon, name = found[1].partition(":")
            if kind == "file" and colon:
                return found[0]
            if kind not in ("env", "input") or not colon:
                bare, has_default, default = found[1].partition(":-")
                if not _NAME.fullmatch(bare) or bare in _EDITORS:
                    used.notes.append(f"{found[0]} is known to the editor alone; write what it stands for.")
                    return found[0]
                if has_default and f"env:{bare}" not in values:
                    used.optional.append(f"env:{bare}")
                    return default
                kind, name = "env", bare
            variable = f"{kind}:{name}"
            if variable in values:
                if not may_refer:
                    used.notes.append(f"A value of {variable} stands where it is shown; headers and variables are not.")
                return values[variable]
            used.still_open.append(variable)
            if kind == "input" or not may_refer:
                used.needed.append(variable)
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
    return found, used
