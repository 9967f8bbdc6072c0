"""`mcp-gateway apply FILE|DIR`: servers, toolsets and keys as files have them, for version control.

Done again it does nothing. A file is YAML or JSON: `{"servers": {NAME: fields}, "toolsets": {SLUG: fields}, "keys":
{NAME: fields}}`, fields as REST has them; what is not named has its default. Toolsets come after the servers that they
hold, and before the keys that are granted them. Keys have no secrets: a new one's text goes to `--keys-out` once, and
nowhere else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gateway.cli.client import Exit, Refused, Remote, server_path, toolset_path
from gateway.cli.import_commands import values_of
from gateway.cli.terminal import AsJson, Key, Url, asking, print_json, print_table
from gateway.errors import InvalidParams
from gateway.model.hidden_text import in_one_line
from gateway.model.import_formats import EXPORT
from gateway.model.imports import read_document

_TIME = re.compile(r"\d{4}-\d\d-\d\dT")
_SUFFIXES = (".json", ".jsonc", ".yaml", ".yml")
_SECTIONS = ("servers", "toolsets", "keys")
_TOOLSET_FIELDS: dict[str, Any] = {
    "title": None,
    "description": "",
    "instructions": None,
    "enabled": True,
    "names": "prefixed",
    "include": [],
    "exclude": [],
    "overrides": {},
    "mode": None,
    "results": None,
    "pinned": [],
}
_KEY_FIELDS: dict[str, Any] = {
    "role": "user",
    "grants": None,
    "limits": None,
    "owner": None,
    "tags": [],
    "expires_at": None,
}
_SIGNS = {"add": "[green]+[/]", "change": "[yellow]~[/]", "remove": "[red]-[/]", "problem": "[red]![/]"}
_WORDS = {"add": ("to add", "added"), "change": ("to change", "changed"), "remove": ("to remove", "removed")}


def apply(
    path: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="a file, or a folder of them")],
    check: Annotated[bool, typer.Option("--check", help="change nothing; exit with 5 if something differs")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="remove servers and toolsets, and revoke keys, that no file has")
    ] = False,
    resolve: Annotated[bool, typer.Option("--resolve", help="take ${env:X} from this environment")] = False,
    keys_out: Annotated[Path | None, typer.Option("--keys-out", help="where new keys are written (0600)")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make servers, toolsets and keys what files say; what is as it should be is left alone."""
    with asking(url, key, as_json) as to:
        wanted = _read(path)
        steps = [
            *_servers(to.remote, wanted, prune=prune, resolve=resolve),
            *_toolsets(to.remote, wanted, prune=prune),
            *_keys(to.remote, wanted, prune=prune),
        ]
        new = [step for step in steps if step["kind"] == "key" and step["action"] == "add"]
        if new and keys_out is None and not check:
            names = ", ".join(step["name"] for step in new)
            raise Refused(f"The keys {names} are new: say with --keys-out FILE where their texts go.", Exit.USAGE)
        is_done = not check and not any(step["action"] == "problem" for step in steps)
        if is_done:
            _carry_out(to.remote, wanted, steps, keys_out, resolve=resolve)
        differs = [step for step in steps if step["action"] != "same"]
        if to.as_json:
            print_json({"steps": steps})
        else:
            _show(steps, is_done=is_done)
    if any(step["action"] == "problem" for step in steps):
        if not (check or is_done):
            typer.echo("nothing was done: what is marked with ! stands in the way", err=True)
        raise typer.Exit(Exit.FAILED)
    if check and differs:
        raise typer.Exit(Exit.DRIFT)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The servers, toolsets and keys of all files; a name that stands in two is refused."""
    files = [path]
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES)
        if not files:
            raise Refused(f"{path} has no file that ends in {', '.join(_SUFFIXES)}.", Exit.USAGE)
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        try:
            document = read_document(file.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise Refused(f"{file} can't be read: {error.strerror}.", Exit.USAGE) from None
        except (InvalidParams, UnicodeDecodeError) as error:
            raise Refused(f"{file}: {getattr(error, 'detail', 'it is not UTF-8.')}", Exit.USAGE) from None
        for section, value in document.items():
            if section in ("format", "version"):
                continue
            if section not in _SECTIONS or not isinstance(value, Mapping):
                known = ", ".join(map(repr, _SECTIONS))
                raise Refused(f"{file}: {section!r} is none of {known}, objects by name.", Exit.USAGE)
            for name, fields in value.items():
                if name in found.setdefault(section, {}):
                    raise Refused(f"{file}: {name!r} stands in another file, too.", Exit.USAGE)
                found[section][str(name)] = fields
    return found


def _servers(remote: Remote, wanted: Mapping[str, Any], *, prune: bool, resolve: bool) -> Iterator[dict[str, Any]]:
    if "servers" not in wanted:
        return
    answer = _import(remote, wanted["servers"], dry_run=True, resolve=resolve)
    for each in answer["servers"]:
        problem = each.get("problem")
        step = {"kind": "server", "name": each["name"], "action": "problem" if problem else each["action"]}
        yield step | {"said": problem or ", ".join(each.get("changes", ()))}
    if prune:
        kept = {each["name"] for each in answer["servers"]}
        for server in remote.ask("GET", "/mcp/servers")["servers"]:
            if server["name"] not in kept:
                yield {"kind": "server", "name": server["name"], "action": "remove", "said": ""}


def _import(remote: Remote, servers: Mapping[str, Any], *, dry_run: bool, resolve: bool) -> Any:
    text = json.dumps({"format": EXPORT, "version": 1, "servers": servers})
    body = {"text": text, "replace": True, "whole": True}
    looked = remote.ask("POST", "/mcp/import", body | {"dry_run": True})
    values = values_of(looked, (), resolve=resolve, may_ask=False)
    if dry_run and not values:
        return looked
    return remote.ask("POST", "/mcp/import", body | {"dry_run": dry_run, "values": values})


def _toolsets(remote: Remote, wanted: Mapping[str, Any], *, prune: bool) -> Iterator[dict[str, Any]]:
    if "toolsets" not in wanted:
        return
    there = {toolset["slug"]: toolset for toolset in remote.ask("GET", "/mcp/toolsets")["toolsets"]}
    for slug, fields in wanted["toolsets"].items():
        step = {"kind": "toolset", "name": slug}
        if not isinstance(fields, Mapping):
            yield step | {"action": "problem", "said": "It is no object."}
            continue
        known, whole = there.get(slug), _TOOLSET_FIELDS | dict(fields)
        changes = [] if known is None else [each for each in whole if not _is_same(known.get(each), whole[each])]
        action = "add" if known is None else "change" if changes else "same"
        yield step | {"action": action, "said": ", ".join(changes)}
    if prune:
        for slug in there:
            if slug not in wanted["toolsets"]:
                yield {"kind": "toolset", "name": slug, "action": "remove", "said": ""}


def _keys(remote: Remote, wanted: Mapping[str, Any], *, prune: bool) -> Iterator[dict[str, Any]]:
    if "keys" not in wanted:
        return
    live = {key["name"]: key for key in _live_keys(remote)}
    me = remote.ask("GET", "/whoami")["id"]
    for name, fields in wanted["keys"].items():
        if not isinstance(fields, Mapping):
            yield {"kind": "key", "name": name, "action": "problem", "said": "It is no object."}
            continue
        if unknown := [each for each in fields if each not in _KEY_FIELDS]:
            yield {"kind": "key", "name": name, "action": "problem", "said": f"It takes no {', '.join(unknown)}."}
            continue
        known = live.get(name)
        whole = _KEY_FIELDS | dict(fields)
        changes = [] if known is None else [each for each in whole if not _is_same(known[each], whole[each])]
        action = "add" if known is None else "change" if changes else "same"
        yield {"kind": "key", "name": name, "action": action, "said": ", ".join(changes), "id": known and known["id"]}
    if prune:
        for name, key in live.items():
            if name not in wanted["keys"] and key["id"] != me:
                yield {"kind": "key", "name": name, "action": "remove", "said": "", "id": key["id"]}


def _is_same(one: Any, other: Any) -> bool:
    def plain(value: Any) -> Any:
        if isinstance(value, str) and _TIME.match(value):
            return datetime.fromisoformat(value).astimezone(UTC).isoformat()
        return None if value in ([], {}, {"allow": []}) else value

    return json.dumps(plain(one), sort_keys=True) == json.dumps(plain(other), sort_keys=True)


def _live_keys(remote: Remote) -> Iterator[Mapping[str, Any]]:
    cursor = ""
    while cursor is not None:
        page = remote.ask("GET", f"/keys?limit=1000&cursor={cursor}")
        yield from (key for key in page["keys"] if not key["revoked_at"])
        cursor = page["next_cursor"]


def _carry_out(
    remote: Remote, wanted: Mapping[str, Any], steps: list[dict[str, Any]], keys_out: Path | None, *, resolve: bool
) -> None:
    if keys_out is not None:
        _private(keys_out)
    if any(step["kind"] == "server" and step["action"] in ("add", "change") for step in steps):
        imported = _import(remote, wanted["servers"], dry_run=False, resolve=resolve)["servers"]
        done = {each["name"]: each for each in imported}
        for step in steps:
            if step["kind"] == "server" and (problem := done.get(step["name"], {}).get("problem")):
                step |= {"action": "problem", "said": problem}
    for step in [each for each in steps if each["kind"] == "server"]:
        _tried(remote, wanted, step, keys_out)
    now = {step["name"]: step for step in _toolsets(remote, wanted, prune=False)}  # servers may have taken trust away
    for step in [each for each in steps if each["kind"] != "server"]:
        if step["kind"] == "toolset" and step["action"] == "same":
            step |= now.get(step["name"], {})
        _tried(remote, wanted, step, keys_out)


def _tried(remote: Remote, wanted: Mapping[str, Any], step: dict[str, Any], keys_out: Path | None) -> None:
    """Take a step, or note why it can't be: the others are still taken, since all are asked for."""
    try:
        _take(remote, step, wanted.get(f"{step['kind']}s", {}).get(step["name"], {}), keys_out)
    except Refused as error:
        step |= {"action": "problem", "said": str(error)}


def _take(remote: Remote, step: Mapping[str, Any], fields: Mapping[str, Any], keys_out: Path | None) -> None:
    match step["kind"], step["action"]:
        case "server", "remove":
            remote.ask("DELETE", server_path(step["name"]))
        case "toolset", "add" | "change":
            remote.ask("PUT", toolset_path(step["name"]), dict(fields))
        case "toolset", "remove":
            remote.ask("DELETE", toolset_path(step["name"]))
        case "key", "add" if keys_out is not None:
            made = remote.ask("POST", "/keys", {"name": step["name"], **fields})
            with keys_out.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"name": step["name"], "key": made["key"]}) + "\n")
        case "key", "change":
            remote.ask("PATCH", f"/keys/{step['id']}", _KEY_FIELDS | dict(fields))
        case "key", "remove":
            remote.ask("DELETE", f"/keys/{step['id']}")


def _private(file: Path) -> None:
    """Open the file before any key is made, for its owner alone: a key's text is told once."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Refused(f"{file} can't be written: {error.strerror}.", Exit.USAGE) from None


def _show(steps: list[dict[str, Any]], *, is_done: bool) -> None:
    table = Table("", "what", "name", "differs in")
    for step in steps:
        if step["action"] != "same":
            cells = (step["kind"], step["name"], step["said"])
            table.add_row(_SIGNS[step["action"]], *(escape(in_one_line(cell)) for cell in cells))
    if table.rows:
        print_table(table)
    counts = [f"{sum(step['action'] == action for step in steps)} {words[is_done]}" for action, words in _WORDS.items()]
    same = sum(step["action"] == "same" for step in steps)
    typer.echo(", ".join([*counts, f"{same} the same"]))
