"""Importing servers from other products' files, and exporting them: what would be done, and doing it.

One at a time, each by the same way as a registration: what is refused of one keeps no other from being taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any

from gateway.errors import GatewayError, InvalidParams
from gateway.methods.call import Call, Handler, needs
from gateway.methods.servers import checked_change, put_server
from gateway.model.import_formats import EXPORT
from gateway.model.imports import Imported, is_told, read_import
from gateway.model.server import ServerSpec
from gateway.model.server_fields import parse_spec, patch_spec
from gateway.registry.servers import Change

_MANAGES = needs("operator", "import servers")
_PARAMS = ("text", "values", "dry_run", "replace", "whole", "only")
_DERIVED = frozenset({"fingerprint", "sealed_away", "name"})


@_MANAGES
async def import_servers(call: Call, /, **params: Any) -> Mapping[str, Any]:
    """Take the servers of a file's `text`; with `dry_run` only say what would be done.

    `values` are those of variables (`{"env:X": …, "input:x": …}`), `replace` changes servers that differ, `whole` gives
    what is not named its default, `only` names those that are wanted.
    """
    text, values = params.get("text"), params.get("values") or {}
    for each in params:
        if each not in (*_PARAMS, "_meta"):
            raise InvalidParams(f"There is no parameter {each[:64]!r}; send {', '.join(_PARAMS)}.", each[:64])
    if not isinstance(text, str):
        raise InvalidParams("'text' must be the file's text.", "text")
    if not isinstance(values, Mapping) or not all(isinstance(each, str) for each in values.values()):
        raise InvalidParams("'values' must be an object of texts.", "values")
    how = _How(*(params.get(name, False) for name in ("dry_run", "replace", "whole")))
    if not all(isinstance(each, bool) for each in (how.dry_run, how.replace, how.whole)):
        raise InvalidParams("'dry_run', 'replace' and 'whole' must be true or false.", "dry_run")
    only = params.get("only")
    if only is not None and not (isinstance(only, list) and all(isinstance(each, str) for each in only)):
        raise InvalidParams("'only' must be a list of names.", "only")
    found = await asyncio.to_thread(read_import, text, values)
    await call.gateway.sync.catch_up()
    wanted = [each for each in found.servers if only is None or each.name in only]
    servers = [await _one(call, each, how) for each in wanted]
    variables = list(dict.fromkeys(name for each in wanted for name in each.variables))
    optional = list(dict.fromkeys(name for each in wanted for name in each.optional))
    document = {"format": found.format, "servers": servers, "variables": variables, "optional": optional}
    return document | {"notes": list(found.notes)}


@dataclass(frozen=True, slots=True)
class _How:
    """How servers are taken."""

    dry_run: bool
    replace: bool
    whole: bool
    """What is not named has its default; else it stays as it is stored."""


async def _one(call: Call, imported: Imported, how: _How) -> dict[str, Any]:
    """What is, or would be, done with one server of a file."""
    document: dict[str, Any] = {"name": imported.name, "given": imported.given, "notes": list(imported.notes)}
    if not imported.fields:
        return document | {"action": "skip", "problem": "It can't be taken."}
    if imported.needed:
        return document | {"action": "skip", "problem": f"It needs values of {', '.join(imported.needed)}."}
    given = {**imported.fields, "name": imported.name}
    known = call.gateway.sync.catalogue.servers.get(imported.name)
    stored = None if known is None else known.spec

    def merged(before: ServerSpec | None) -> ServerSpec:
        return parse_spec(given, before) if before is None or how.whole else patch_spec(before, given)

    try:
        spec = checked_change(call, merged)(stored)
        changes = [] if stored is None else _differences(stored, spec)
        document |= {"action": "add" if stored is None else "change" if changes else "same", "changes": changes}
        document["server"] = spec.public()
        if document["action"] == "change" and not how.replace:
            return document | {"problem": "Another server has this name: `replace` changes it."}
        if not how.dry_run and document["action"] != "same":
            await put_server(call, dict(given), _if_known(merged, is_known=stored is not None), wait_seconds=0)
    except GatewayError as error:
        return document | {"action": "refused", "problem": error.detail, "field": error.facts.get("field")}
    return document


def _if_known(change: Change, *, is_known: bool) -> Change:
    """The same change; a server that somebody registered meanwhile is not overwritten."""

    def checked(stored: ServerSpec | None) -> ServerSpec:
        if (stored is not None) != is_known:
            raise InvalidParams("It was registered or removed meanwhile; import it again.", "name")
        return change(stored)

    return checked


def _differences(before: ServerSpec, after: ServerSpec) -> list[str]:
    names = (each.name for each in fields_of(ServerSpec) if each.name not in _DERIVED)
    return [name for name in names if getattr(before, name) != getattr(after, name)]


@_MANAGES
async def export_servers(call: Call, /, **params: Any) -> Mapping[str, Any]:
    """All servers, as `mcp.servers.import` takes them, without what may be a secret; and the toolsets, for `apply`."""
    for each in params:
        if each != "_meta":
            raise InvalidParams(f"There is no parameter {each[:64]!r}; the export takes none.", each[:64])
    catalogue = call.gateway.sync.catalogue
    servers = {server.name: server.spec.public() for server in catalogue.whole.known()}
    document = {"format": EXPORT, "version": 1, "servers": {name: _exported(each) for name, each in servers.items()}}
    if catalogue.toolsets:
        toolsets = {slug: catalogue.toolsets[slug].spec.public() for slug in sorted(catalogue.toolsets)}
        for fields in toolsets.values():
            del fields["slug"]
        document["toolsets"] = toolsets
    return document


def _exported(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shown.items() if name != "name" and is_told(name, value)}


METHODS: dict[str, Handler] = {
    "mcp.servers.import": import_servers,
    "mcp.servers.export": export_servers,
}
