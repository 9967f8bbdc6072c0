"""The keys' methods: create, list, get, update, revoke, rotate, access; and who the caller is.

For administrators only, but `mcp.whoami`, which is for everybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gateway.access.audit import Log
from gateway.errors import InvalidParams, StoreUnavailable, UnknownKey
from gateway.methods.call import Call, Handler, needs
from gateway.model.api_keys import Key, is_id, read_key_fields, read_overlap
from gateway.model.grants import NOTHING, Grants, read_grants
from gateway.model.kinds import KINDS
from gateway.model.listing import read_limit
from gateway.model.parts import Target, gives_tool
from gateway.model.principals import ROLES
from gateway.model.unmatched import unmatched
from gateway.model.view import View
from gateway.stores.redis import RedisUnavailable

_ADMIN = needs("admin", "manage keys")
_MAX_PAGE = 1000
_MAX_JUDGED = 20_000  # keys of one request, in search of those that see a tool
_JUDGED_AT_ONCE = 20
_WARN_SECONDS = 14 * 86_400


@_ADMIN
async def create_key(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Make a key. The answer alone has its text."""
    table = call.gateway.keys
    fields.pop("_meta", None)
    spec = read_key_fields(fields, datetime.now(UTC)).new()
    await _check_toolsets(call, spec.grants)
    key, text = await table.create(spec, _log(call))
    await call.gateway.sync.announce()
    return shown(key) | {"key": text}


@_ADMIN
async def list_keys(call: Call, /, **params: Any) -> Mapping[str, Any]:
    """Show keys without their secrets, by name, a page at a time; with `sees` those that see this tool."""
    table, cursors = call.gateway.keys, call.gateway.cursors
    for name in params:
        if name not in ("name", "owner", "role", "sees", "limit", "cursor", "_meta"):
            known = "name, owner, role, sees, limit, cursor"
            raise InvalidParams(f"There is no parameter {name[:64]!r}; keys take {known}.", name[:64])
    role, limit = params.get("role"), read_limit(params.get("limit", _MAX_PAGE), _MAX_PAGE)
    for field in ("name", "owner", "sees"):
        if not isinstance(text := params.get(field), str | None) or "\0" in (text or ""):
            raise InvalidParams(f"{field!r} must be a text.", field)
    if role is not None and role not in ROLES:
        raise InvalidParams(f"'role' must be one of {', '.join(ROLES)}.", "role")
    target = None if params.get("sees") is None else call.view.tool(params["sees"])
    after = cursors.read(params.get("cursor"))
    name, _, id = (after or "").rpartition("\0")
    only = {"name": params.get("name"), "owner": params.get("owner"), "role": role}
    place, found, judged, more = (name, id) if after else None, list[Key](), 0, True
    while more and len(found) < limit and judged < _MAX_JUDGED:
        wanted = limit - len(found) if target is None else _MAX_PAGE
        keys = await table.page(place, wanted + 1, **only)
        more = len(keys) > wanted
        for key in keys[:wanted]:
            if len(found) == limit:
                more = True
                break
            place, judged = (key.spec.name, key.id), judged + 1
            if target is None or _sees(key, target):
                found.append(key)
            if judged % _JUDGED_AT_ONCE == 0:
                await asyncio.sleep(0)  # grants may have many patterns
    return {
        "keys": [shown(key) for key in found],
        "next_cursor": cursors.after("\0".join(place)) if more and place is not None else None,
    }


def _sees(key: Key, target: Target) -> bool:
    """Whether a key has not ended and is granted a tool."""
    if key.revoked_at is not None or (key.spec.expires_at is not None and key.spec.expires_at <= datetime.now(UTC)):
        return False
    grants = _effective(key, key.spec.grants)
    return grants is None or gives_tool(grants, target)


@_ADMIN
async def get_key(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Show one key."""
    return shown(await call.gateway.keys.get(_only_id(fields)))


@_ADMIN
async def update_key(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Change some fields of a key."""
    table = call.gateway.keys
    fields.pop("_meta", None)
    id = _id(fields)
    del fields["id"]
    changes = read_key_fields(fields, datetime.now(UTC))
    await _check_toolsets(call, changes.values.get("grants"))
    key = await table.update(id, changes.changed, _log(call, id))
    await call.gateway.sync.announce()
    return shown(key)


@_ADMIN
async def revoke_key(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """End a key for good, or all keys of an `owner`; what they have open ends, too."""
    table = call.gateway.keys
    fields.pop("_meta", None)
    owner = fields.pop("owner", None)
    if owner is not None:
        if fields or not isinstance(owner, str) or not owner or "\0" in owner:
            raise InvalidParams("Send an 'id', or an 'owner', a text: one of the two.", "owner")
        keys = await table.revoke(owner=owner, log=_log(call))
    else:
        keys = await table.revoke(id=_only_id(fields), log=_log(call))
    await call.gateway.sync.announce()
    return {"keys": [shown(key) for key in keys]} if owner is not None else shown(keys[0])


@_ADMIN
async def rotate_key(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Give a key a new secret; the old one is taken for `overlap_seconds` more (3600)."""
    table = call.gateway.keys
    overlap = read_overlap(fields.pop("overlap_seconds", 3600))
    key, text = await table.rotate(_only_id(fields), overlap, _log(call))
    await call.gateway.sync.announce()
    return shown(key) | {"key": text}


@_ADMIN
async def key_access(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Show what a key sees now; `grants`, if sent, in place of its own."""
    table = call.gateway.keys
    asked = fields.pop("grants", None)
    key = await table.get(_only_id(fields))
    grants = read_grants(asked) if asked is not None else key.spec.grants
    if asked is not None:
        await _check_toolsets(call, grants)
    return access(call.gateway.sync.catalogue.view(_effective(key, grants)))


async def whoami(call: Call, /, **params: Any) -> Mapping[str, Any]:
    """Show who the caller is, and what they may do."""
    principal, limits = call.principal, call.principal.limits
    grants = None if principal.grants is None else principal.grants.source
    document = {"id": principal.id, "name": principal.name, "role": principal.role, "grants": grants}
    try:
        if principal.key is not None:
            document = shown(await call.gateway.keys.get(principal.id))
    except (StoreUnavailable, UnknownKey):
        pass  # what memory has is enough to tell
    document["limits"] = None if limits is None else limits.public()
    if limits is not None:
        try:
            document["left"] = await call.gateway.rates.left(f"key:{principal.id}", limits)
        except RedisUnavailable:
            document["left"] = None
    return document


def shown(key: Key) -> dict[str, Any]:
    """A key as JSON; one that expires within two weeks says so."""
    document, expires = key.public(), key.spec.expires_at
    if expires is not None and key.revoked_at is None:
        left = (expires - datetime.now(UTC)).total_seconds()
        if left <= 0:
            document["warning"] = "This key has expired."
        elif left < _WARN_SECONDS:
            days = int(left // 86_400)
            when = f"in {days} days" if days > 1 else "within two days"
            document["warning"] = f"This key expires {when}: an administrator can extend it (expires_at)."
    return document


def access(view: View) -> dict[str, Any]:
    """What a view holds, by names, and which of its grants match nothing."""
    found: dict[str, Any] = {"servers": [server.name for server in view.known()]}
    for kind in ("tools", "prompts", "resources"):
        found[kind] = [item[KINDS[kind].identity] for _, item in view.items(kind)]
    found["resources"] += [item["uriTemplate"] for _, item in view.items("templates")]
    toolsets = [toolset.slug for toolset in view.toolsets()]
    there = view.catalogue
    return found | {
        "toolsets": toolsets,
        "unmatched": unmatched(there.servers.values(), view.grants or NOTHING, there.toolsets),
    }


async def _check_toolsets(call: Call, grants: Grants | None) -> None:
    """Refuse grants that name a toolset which does not exist; a pattern may speak of those to come."""
    if grants is None:
        return
    named = [
        (f"grants.{kind}[{number}].toolsets", text)
        for kind, rules in (("allow", grants.allow), ("deny", grants.deny))
        for number, rule in enumerate(rules)
        for text in (() if rule.toolsets is None else rule.toolsets.texts)
        if not {"*", "?"} & set(text)
    ]
    sync = call.gateway.sync
    if any(text not in sync.catalogue.toolsets for _, text in named):
        await sync.catch_up()  # it may have been made a moment ago
    for at, text in named:
        if text not in sync.catalogue.toolsets:
            raise InvalidParams(f"'{at}': there is no toolset {text[:64]!r}.", at)


def _log(call: Call, id: str = "") -> Log:
    """What writes the audit's row of a change of a key."""
    return call.gateway.audit.of_change(call.principal, call.request.method, call.request_id, f"key:{id}")


def _effective(key: Key, grants: Grants | None) -> Grants | None:
    return None if key.spec.role != "user" else grants or NOTHING


def _id(fields: Mapping[str, Any]) -> str:
    id = fields.get("id")
    if not isinstance(id, str):
        raise InvalidParams("'id' must be a text, the key's id.", "id")
    if not is_id(id):
        raise UnknownKey(id)
    return id


def _only_id(fields: Mapping[str, Any]) -> str:
    for each in fields:
        if each not in ("id", "_meta"):
            raise InvalidParams(f"There is no parameter {each[:64]!r}; send the key's 'id'.", each[:64])
    return _id(fields)


METHODS: dict[str, Handler] = {
    "mcp.keys.create": create_key,
    "mcp.keys.list": list_keys,
    "mcp.keys.get": get_key,
    "mcp.keys.update": update_key,
    "mcp.keys.revoke": revoke_key,
    "mcp.keys.rotate": rotate_key,
    "mcp.keys.access": key_access,
    "mcp.whoami": whoami,
}
