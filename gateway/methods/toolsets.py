"""The toolsets' methods: create, list, get, update, remove. REST and JSON-RPC call the same ones.

An operator sees all of a toolset; a user's key sees those that it is granted, and how they can be used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from gateway.errors import InvalidParams, ToolsetExists, UnknownToolset
from gateway.methods.call import Call, Handler, needs
from gateway.methods.overrides import check_overrides
from gateway.methods.servers import tokens_of_search
from gateway.model.cursors import Cursors
from gateway.model.kinds import KINDS
from gateway.model.listing import ListQuery
from gateway.model.override_fields import Overrides
from gateway.model.override_problems import problems
from gateway.model.parts import gives_tool
from gateway.model.tokens import tokens_of
from gateway.model.toolset_fields import is_slug, parse_toolset, patch_toolset
from gateway.model.toolsets import Toolset, ToolsetSpec
from gateway.model.unmatched import unmatched
from gateway.model.view import View
from gateway.registry.toolsets import Change

_SHOWN_TO_USERS = (
    "slug", "title", "description", "instructions", "enabled", "names", "mode", "state", "counts", "servers",
)  # fmt: skip
_MAX_PROBLEMS = 50

_OPERATOR = needs("operator", "manage toolsets")


@_OPERATOR
async def create_toolset(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Store a new toolset; the very same one again changes nothing."""

    def only_new(stored: ToolsetSpec | None) -> ToolsetSpec:
        spec = parse_toolset(fields)
        if stored is not None and spec.public() != stored.public():
            raise ToolsetExists(spec.slug)
        return spec

    return await _put(call, fields, only_new)


@_OPERATOR
async def replace_toolset(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Create a toolset or give it another specification (REST's PUT)."""
    return await _put(call, fields, lambda stored: parse_toolset(fields))


@_OPERATOR
async def update_toolset(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Change some fields of a toolset (REST's PATCH); those that are not named stay."""

    def update(stored: ToolsetSpec | None) -> ToolsetSpec:
        if stored is None:
            raise UnknownToolset(_slug(fields))
        return patch_toolset(stored, fields)

    return await _put(call, fields, update)


async def _put(call: Call, fields: dict[str, Any], change: Change) -> Mapping[str, Any]:
    gateway = call.gateway
    fields.pop("_meta", None)
    slug = _slug(fields)
    await gateway.sync.catch_up()  # names are decided by what the registry has now
    log = gateway.audit.of_change(call.principal, call.request.method, call.request_id, f"toolset:{slug}")
    if await gateway.toolsets.put(slug, _fitting(call, change), gateway.sync.catalogue, log):
        gateway.sync.hint_others()
    return await _current(call, slug)


def _fitting(call: Call, change: Change) -> Change:
    """The same change, refused where overrides don't fit the tools that are known. Raises InvalidParams, RoleNeeded."""

    def checked(stored: ToolsetSpec | None) -> ToolsetSpec:
        spec, servers = change(stored), call.gateway.sync.catalogue.servers
        for name, overrides in spec.overrides.items():
            before: Overrides = {} if stored is None else stored.overrides.get(name, {})
            if overrides != before:
                server = servers.get(name)
                below: Overrides = {} if server is None else server.spec.overrides
                check_overrides(call, server, overrides, before, below, f"overrides.{name}")
        return spec

    return checked


@_OPERATOR
async def remove_toolset(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Forget a toolset; nothing of its servers changes."""
    slug = _only_slug(fields)
    log = call.gateway.audit.of_change(call.principal, call.request.method, call.request_id, f"toolset:{slug}")
    await call.gateway.toolsets.remove(slug, log)
    await call.gateway.sync.announce()
    return {"slug": slug, "removed": True}


async def get_toolset(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Show one toolset."""
    slug = _only_slug(fields)

    def look(view: View) -> tuple[View, Toolset]:
        found = next((toolset for toolset in view.toolsets() if toolset.slug == slug), None)
        if found is None:
            raise UnknownToolset(slug)
        return view, found

    view, toolset = await call.find(look)
    return document_of(toolset, view)


async def list_toolsets(call: Call, /, **params: Any) -> Mapping[str, Any]:
    """Show the toolsets that are asked for."""
    cursors = call.gateway.cursors
    await look_at_toolsets(call.view)
    return listed_toolsets(call.view, ListQuery.from_params(params, cursors), cursors)


async def look_at_toolsets(view: View) -> None:
    """See what each toolset holds, and let others have their turn in between; what was seen is kept with the view."""
    for toolset in view.toolsets():
        if toolset.spec.enabled:
            for _ in members_view(toolset, view).build():
                await asyncio.sleep(0)


def listed_toolsets(view: View, query: ListQuery, cursors: Cursors) -> dict[str, Any]:
    """The document of the list: `{"toolsets": [...], "revision": n, "total": n, "next_cursor": …}`.

    `server` and `tag` in the query choose toolsets that hold something of such a server.
    """
    found = []
    for toolset in view.toolsets():
        shown = document_of(toolset, view)
        named = {**shown, "name": toolset.slug}
        if query.servers or query.tags:
            is_taken = any(query.takes(server, named) for server in members_view(toolset, view).known())
        else:
            is_taken = query.takes_words(named)
        if is_taken:
            found.append(shown | _tokens(toolset, view) if query.tokens else shown)
    items, last = query.page(found, lambda item: str(item["slug"]))
    return {
        "toolsets": items,
        "revision": view.catalogue.revision,
        "total": len(found),
        "next_cursor": None if last is None else cursors.after(last),
    }


def _tokens(toolset: Toolset, view: View) -> dict[str, Any]:
    """What a toolset's tools take of a model's context in either mode."""
    items = {item["name"]: item for _, item in members_view(toolset, view).items("tools")}
    pinned = sum(tokens_of(items[name]) for name in toolset.spec.pinned if name in items)
    return {"tokens": {"full": sum(map(tokens_of, items.values())), "search": tokens_of_search(len(items)) + pinned}}


def members_view(toolset: Toolset, view: View) -> View:
    """What a caller sees at a toolset's address, also while it is disabled."""
    if toolset.spec.enabled:
        return view.catalogue.view(view.grants, toolset.slug)
    return View(view.catalogue, view.grants, {}, toolset)


def document_of(toolset: Toolset, view: View) -> dict[str, Any]:
    """A toolset as JSON: all of it for who manages servers, else how it can be used, with counts of what is seen."""
    held = members_view(toolset, view)
    problems = list(_problems(toolset, view))[:_MAX_PROBLEMS] if view.grants is None else []
    shown = toolset.spec.public() | {
        "state": "disabled" if not toolset.spec.enabled else "incomplete" if problems else "ready",
        "problems": problems,
        "servers": [server.name for server in held.known()],
        "counts": {kind: len(held.items(kind)) for kind in KINDS},
        "revision": toolset.revision,
        "created_at": toolset.created_at,
        "updated_at": toolset.updated_at,
    }
    if view.grants is None:
        return shown
    return {name: shown[name] for name in _SHOWN_TO_USERS}


def _problems(toolset: Toolset, view: View) -> list[str]:
    """What is not as the toolset's author wanted it, one sentence each."""
    rules = toolset.spec.rules
    found = [] if rules.allow else ["It includes nothing: give it rules in 'include'."]
    found += [f"Nothing is there for {text}." for text in unmatched(view.catalogue.servers.values(), rules)]
    for name, overrides in toolset.spec.overrides.items():
        server = view.catalogue.servers.get(name)
        if server is None:
            found.append(f"There is no server {name!r}, whose tools have overrides.")
        else:
            found += [each.text for each in problems(server, overrides, server.spec.overrides)]
    given = toolset.spec.explicit
    for (server_name, tool), name in given.items():
        other = view.public["tools"].get(name)
        if other is not None and (other.server.name, other.local) not in given and gives_tool(rules, other):
            found.append(
                f"{other.local!r} of {other.server.name!r} is not shown as {name!r}: {tool!r} of {server_name!r} is "
                "named so."
            )
    shown = members_view(toolset, view).public["tools"]
    found += [f"There is no tool {name!r} here to be pinned." for name in toolset.spec.pinned if name not in shown]
    for kind, name, local in toolset.kept_prefixes():
        if name in view.catalogue.servers:
            found.append(f"{local!r} of {name!r} keeps its prefix: among the {kind} another one has the bare name.")
    return found


async def _current(call: Call, slug: str) -> Mapping[str, Any]:
    """The toolset as the registry has it now."""
    await call.gateway.sync.catch_up()
    view = call.gateway.sync.catalogue.whole
    toolset = view.catalogue.toolsets.get(slug)
    if toolset is None:  # removed in the same moment
        raise UnknownToolset(slug)
    return document_of(toolset, view)


def _slug(fields: Mapping[str, Any]) -> str:
    slug = fields.get("slug")
    if slug is None:
        raise InvalidParams("The field 'slug' is required.", "slug")
    parse_toolset({"slug": slug})
    return str(slug)


def _only_slug(fields: Mapping[str, Any]) -> str:
    for each in fields:
        if each not in ("slug", "_meta"):
            raise InvalidParams(f"There is no parameter {each[:64]!r}; send the toolset's 'slug'.", each[:64])
    slug = fields.get("slug")
    if not isinstance(slug, str):
        raise InvalidParams("'slug' must be a string, the toolset's slug.", "slug")
    if not is_slug(slug):
        raise UnknownToolset(slug)
    return slug


METHODS: dict[str, Handler] = {
    "mcp.toolsets.create": create_toolset,
    "mcp.toolsets.list": list_toolsets,
    "mcp.toolsets.get": get_toolset,
    "mcp.toolsets.update": update_toolset,
    "mcp.toolsets.remove": remove_toolset,
}
