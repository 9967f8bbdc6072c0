"""The tool lock's methods: what a server changed since it was approved, approving it, and digests for a lock file.

For who manages servers: definitions that nobody approved yet stand in these answers, and in no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from gateway.errors import ChangedSince, InvalidParams, NotAsked, UnknownServer
from gateway.methods.call import Call, Handler, needs
from gateway.model.definitions import definition, diff, digests, parts_that_differ
from gateway.model.grants import believed
from gateway.model.listing import read_limit
from gateway.model.server import NO_OFFERS, Server
from gateway.model.server_fields import is_name
from gateway.model.tool_lock import Approved, approve, first_approved

_MANAGES = needs("operator", "see and approve what servers change")
_PAGE, _MAX_PAGE = 100, 1000
_REFRESH_SECONDS = 8.0
_EFFECTS = {
    ("warn", "changed"): "served",
    ("warn", "new"): "served",
    ("enforce", "changed"): "refused",
    ("enforce", "new"): "withheld",
}


@_MANAGES
async def list_changes(call: Call, /, **params: Any) -> Mapping[str, Any]:
    """Show what of a server's tools is not as it was approved, with a diff for people, and what looks suspicious."""
    name = _name(params, "limit", "cursor")
    limit = read_limit(params.get("limit", _PAGE), _MAX_PAGE)
    after = call.gateway.cursors.read(params.get("cursor"))
    return await _changes(call, await call.find(lambda view: view.server(name)), limit, after)


async def _changes(call: Call, server: Server, limit: int, after: str | None) -> Mapping[str, Any]:
    """A page of what is to be approved of a server."""
    names = sorted(server.to_approve)
    rest = [each for each in names if after is None or each > after]
    page = rest[:limit]
    document = await asyncio.to_thread(_document, server, page)  # comparing long texts takes its time
    more = len(rest) > limit
    return document | {"total": len(names), "next_cursor": call.gateway.cursors.after(page[-1]) if more else None}


@_MANAGES
async def approve_changes(call: Call, /, **params: Any) -> Mapping[str, Any]:
    """Approve what a server changed: all of it, or these `tools`; with `digest`, only what was seen with it."""
    name = _name(params, "tools", "digest")
    tools, digest = params.get("tools"), params.get("digest")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(each, str) for each in tools)):
        raise InvalidParams("'tools' must be a list of the tools' own names.", "tools")
    if not isinstance(digest, str | None):
        raise InvalidParams("'digest' must be the text that stands in the changes.", "digest")

    def change(server: Server) -> Approved:
        if not server.digest:
            raise NotAsked(name)
        if digest is not None and digest != server.digest:
            raise ChangedSince(name)
        found = server.to_approve
        for each in tools or ():
            if each not in found:
                raise InvalidParams(f"There is nothing to approve of the tool {each[:128]!r}.", "tools")
        names = found if tools is None else set(tools)
        return approve(server.spec.lock, server.offers.tools, server.approved, names)

    log = call.gateway.audit.of_change(call.principal, call.request.method, call.request_id, f"server:{name}")
    await call.gateway.servers.approve(name, change, log)
    await call.gateway.sync.announce()
    return await _changes(call, call.gateway.sync.catalogue.whole.server(name), _PAGE, None)


@_MANAGES
async def list_digests(call: Call, /, **params: Any) -> Mapping[str, Any]:
    """Show the digests of all that a server offers as tools, as a lock file keeps them; `tools` null: not yet asked.

    With `refresh` the server is asked first, and `is_fresh` tells whether it answered.
    """
    name = _name(params, "refresh")
    refresh = params.get("refresh", False)
    if not isinstance(refresh, bool):
        raise InvalidParams("'refresh' must be true or false.", "refresh")
    server = await call.find(lambda view: view.enabled_server(name) if refresh else view.server(name))
    is_fresh = False
    if refresh:
        is_answered = await call.gateway.discovery.discover(name, _REFRESH_SECONDS)
        await call.gateway.sync.catch_up()
        server = call.gateway.sync.catalogue.whole.server(name)
        is_fresh = is_answered and (server.state, server.reason) == ("ready", None)

    def found() -> dict[str, dict[str, str]] | None:
        if server.offers is NO_OFFERS:
            return None
        return {name: digests(tool) for name, tool in sorted(first_approved(server.offers.tools).items())}

    document = {"server": name, "state": server.state, "reason": server.reason, "discovered_at": server.discovered_at}
    beside = {"is_fresh": is_fresh, "overrides": server.spec.overrides}
    return document | beside | {"tools": await asyncio.to_thread(found)}


def _document(server: Server, names: Collection[str]) -> dict[str, Any]:
    offered = first_approved(server.offers.tools)
    return {
        "server": server.name,
        "lock": server.spec.lock,
        "digest": server.digest,
        "changes": [_change(server, offered, name) for name in names],
        "flags": list(server.flags),
    }


def _change(server: Server, offered: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """One tool that is not as it was approved."""
    judged = server.judged
    what, after = judged.changes.get(name, "hints"), offered.get(name)
    before = after if what == "hints" else (server.approved.tools or {}).get(name)
    found = diff(before, after)
    shown: dict[str, Any] = {
        "tool": name,
        "what": what,
        "effect": _EFFECTS.get((server.spec.lock or "", what), "none"),
        "parts": [] if before is None or after is None else parts_that_differ(before, after),
        "before": None if before is None else definition(before),
        "after": None if after is None else definition(after),
        "diff": "\n".join(found.lines),
        "diff_is_whole": found.is_whole,
    }
    if (override := server.spec.overrides.get(name)) is not None:
        shown["override"] = override
    if (hints := judged.doubted.get(name)) is not None:
        claimed = believed(next(tool for tool in judged.tools if tool["name"] == name))
        shown["doubted"] = {
            hint: {"claimed": claimed[hint], "believed": value}
            for hint, value in hints.items()
            if claimed[hint] is not value
        }
    return shown


def _name(params: Mapping[str, Any], *others: str) -> str:
    for each in params:
        if each not in ("name", *others, "_meta"):
            known = ", ".join(("name", *others))
            raise InvalidParams(f"There is no parameter {each[:64]!r}; this method takes {known}.", each[:64])
    name = params.get("name")
    if not isinstance(name, str):
        raise InvalidParams("'name' must be a string, the server's name.", "name")
    if not is_name(name):
        raise UnknownServer(name)
    return name


METHODS: dict[str, Handler] = {
    "mcp.servers.changes": list_changes,
    "mcp.servers.approve": approve_changes,
    "mcp.servers.digests": list_digests,
}
