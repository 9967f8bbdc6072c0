"""The registry's methods: register, list, get, update, remove, refresh. REST and JSON-RPC call the same ones.

Changes are made in one transaction of the registry, read back, and shown without secrets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.errors import (
    Forbidden,
    InvalidParams,
    ServerExists,
    UnknownServer,
)
from gateway.methods.api_documents import is_of_api, with_base_url
from gateway.methods.call import Call, Handler, needs
from gateway.methods.overrides import check_overrides
from gateway.methods.vetting import vet
from gateway.model.cursors import Cursors
from gateway.model.kinds import KINDS
from gateway.model.listing import ListQuery
from gateway.model.meta_tools import definitions, names_of
from gateway.model.override_fields import Overrides
from gateway.model.override_problems import problems
from gateway.model.principals import require_role
from gateway.model.references import check_references, references
from gateway.model.server import STDIO, Server, ServerSpec
from gateway.model.server_fields import identified, is_name, parse_spec, patch_spec, read_fields
from gateway.model.tokens import tokens_of
from gateway.model.view import View
from gateway.registry.discovery import CLAIM_SECONDS
from gateway.registry.servers import Change

_REGISTRATION_SECONDS = 2.0
_LEFT_OUT_SHOWN = 10
_SHOWN_TO_USERS = frozenset(
    {
        "name",
        "server_id",
        "title",
        "description",
        "transport_type",
        "enabled",
        "tags",
        "state",
        "reason",
        "unreachable_since",
        "protocol_version",
        "server_info",
    }
)


@needs("operator", "manage servers")
async def register_server(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Store a new server and ask it at once what it offers; the very same one again changes nothing."""

    def only_new(stored: ServerSpec | None) -> ServerSpec:
        spec = parse_spec(fields, stored)
        if stored is not None and spec != stored:
            raise ServerExists(spec.name)
        return spec

    return await put_server(call, fields, only_new)


@needs("operator", "manage servers")
async def replace_server(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Create a server or give it another specification (REST's PUT)."""
    return await put_server(call, fields, lambda stored: parse_spec(fields, stored))


@needs("operator", "manage servers")
async def update_server(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Change some fields of a server (REST's PATCH)."""

    def update(stored: ServerSpec | None) -> ServerSpec:
        if stored is None:
            raise UnknownServer(_server_name(fields))
        return patch_spec(stored, fields)

    return await put_server(call, fields, update)


async def put_server(
    call: Call, fields: dict[str, Any], change: Change, wait_seconds: float = _REGISTRATION_SECONDS
) -> Mapping[str, Any]:
    """Store what `change` makes of a server, and show it; it is asked what it offers, and waited for a little."""
    fields.pop("_meta", None)
    fields = dict(identified(fields))
    sent = read_fields(fields)
    if not sent.get("name"):
        raise InvalidParams("The field 'name' is required.", "name")
    name = _server_name(fields)
    change = checked_change(call, change)
    await vet(call, sent.get("url"), sent.get("spec_url"))
    if is_of_api(call, name, sent):
        change = await with_base_url(call, name, change)
    log = call.gateway.audit.of_change(call.principal, call.request.method, call.request_id, f"server:{name}")
    claim = await call.gateway.servers.put(name, change, CLAIM_SECONDS, log)
    if claim is None:
        return _shown(call, await _current(call, name))
    call.gateway.sync.hint_others()
    asked = claim.spec.enabled and await call.gateway.discovery.discover(claim, wait_seconds)
    known = call.gateway.sync.catalogue.servers.get(name)  # discovery reads what it stored
    if not asked or known is None or known.spec != claim.spec or known.state == "starting":
        known = await _current(call, name)
    return _shown(call, known)


def _shown(call: Call, server: Server) -> Mapping[str, Any]:
    return document_of(server, call.gateway.sync.catalogue.whole)


def checked_change(call: Call, change: Change) -> Change:
    """The same change, refused where it needs another role, or has a program run where none are."""
    if not call.gateway.settings.allow_stdio:
        change = _without_programs(change)
    return _trusted(call, _fitting(call, change))


def _fitting(call: Call, change: Change) -> Change:
    """The same change, refused where overrides don't fit the tools that are known. Raises InvalidParams, RoleNeeded."""

    def checked(stored: ServerSpec | None) -> ServerSpec:
        spec = change(stored)
        is_same = stored is not None and stored.fingerprint == spec.fingerprint
        before: Overrides = stored.overrides if stored is not None and is_same else {}
        if spec.overrides != before:  # what was trusted of another upstream is trusted anew
            known = call.gateway.sync.catalogue.servers.get(spec.name)
            is_known = known is not None and known.spec.fingerprint == spec.fingerprint
            check_overrides(call, known if is_known else None, spec.overrides, before, None, "overrides")
        return spec

    return checked


def _trusted(call: Call, change: Change) -> Change:
    """The same change, refused where it needs an administrator, or refers to what it may not. Raises RoleNeeded."""

    def checked(stored: ServerSpec | None) -> ServerSpec:
        spec = change(stored)
        is_started = stored is not None and spec.enabled and not stored.enabled
        if stored is not None and _secrets(stored) == _secrets(spec) and not is_started:
            return spec
        check_references(spec, str(call.gateway.settings.secrets_dir))
        if spec.transport_type == STDIO:
            require_role(call.principal, "admin", "have programs run")
        if any(references(spec)):
            require_role(call.principal, "admin", "refer to the gateway's secrets")
        return spec

    return checked


def _secrets(spec: ServerSpec) -> tuple[object, ...]:
    """What says where secrets go, and which."""
    place = spec.transport_type, spec.url, spec.command, spec.args, spec.cwd
    return *place, spec.headers, spec.env, list(references(spec))


def _without_programs(change: Change) -> Change:
    """The same change, refused where it would have a program run. Raises Forbidden."""

    def checked(stored: ServerSpec | None) -> ServerSpec:
        spec = change(stored)
        is_new = stored is None or stored.fingerprint != spec.fingerprint
        if spec.transport_type == STDIO and (is_new or (spec.enabled and stored is not None and not stored.enabled)):
            raise Forbidden(
                "Servers of transport_type 'stdio' are programs run on the gateway's machine. The operator has not "
                "allowed them: GATEWAY_ALLOW_STDIO=true."
            )
        return spec

    return checked


@needs("operator", "manage servers")
async def remove_server(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Forget a server."""
    name = _only_name(fields)
    log = call.gateway.audit.of_change(call.principal, call.request.method, call.request_id, f"server:{name}")
    await call.gateway.servers.remove(name, log)
    await call.gateway.sync.announce()
    return {"name": name, "server_id": name, "removed": True}


@needs("operator", "manage servers")
async def refresh_server(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Ask a server now what it offers."""
    name = _only_name(fields)
    server = await call.find(lambda view: view.enabled_server(name))
    await call.gateway.discovery.discover(server.name, 4 * _REGISTRATION_SECONDS)
    return _shown(call, await _current(call, name))


async def get_server(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Show one server."""
    name = _only_name(fields)
    server = await call.find(lambda view: view.server(name))
    view = call.gateway.sync.catalogue.view(call.principal.grants)
    return document_of(server, view) | {"breaker": call.gateway.pool.breakers().get(name, "closed")}


def document_of(server: Server, view: View) -> dict[str, Any]:
    """A server as JSON: all of it for who manages servers, else how it can be used, with counts of what is seen."""
    counts = {kind: view.parts[server.name].count(kind) for kind in KINDS}
    if view.grants is None:
        wrong = [each.text for each in problems(server, server.spec.overrides)] + list(_of_document(server))
        return server.public() | {"counts": counts, "problems": wrong}
    return {name: value for name, value in server.public().items() if name in _SHOWN_TO_USERS} | {"counts": counts}


def _of_document(server: Server) -> Iterator[str]:
    """What an API's document gives that is not as its owner may think."""
    document = server.offers.document
    yield from document.get("warnings", ())
    left_out = document.get("left_out", ())
    for each in left_out[:_LEFT_OUT_SHOWN]:
        yield f"{each['operation']} is no tool: {each['reason']}."
    if len(left_out) > _LEFT_OUT_SHOWN:
        yield f"{len(left_out) - _LEFT_OUT_SHOWN} more operations are no tools: `POST /mcp/openapi/preview` lists them."


async def list_servers(call: Call, /, **params: Any) -> Mapping[str, Any]:
    """Show the servers that are asked for."""
    cursors = call.gateway.cursors
    return listed("servers", call.view, ListQuery.from_params(params, cursors), cursors)


def listed(kind: str, view: View, query: ListQuery, cursors: Cursors) -> dict[str, Any]:
    """The document of one list: `{kind: [...], "revision": n, "total": n, "next_cursor": …}`, items with their server.

    `total` counts what the filter takes, `next_cursor` is null on the last page. Templates come with the first page.
    """
    if kind == "servers":
        shown = [(server, document_of(server, view)) for server in view.known()]
        found = [document for server, document in shown if query.takes(server, document)]
    else:
        found = _with_server(kind, view, query)
    items, last = query.page(found, lambda item: str(item["uri" if kind == "resources" else "name"]))
    document: dict[str, Any] = {kind: items, "revision": view.catalogue.revision, "total": len(found)}
    document["next_cursor"] = None if last is None else cursors.after(last)
    if query.tokens and kind == "tools":
        document |= _with_tokens(items, found)
    if kind == "resources":
        templates = _with_server("templates", view, query) if query.after is None else []
        document["resourceTemplates"] = templates
    return document


def _with_tokens(items: list[Any], found: list[Any]) -> dict[str, Any]:
    """What the tools take of a model's context: each, those of each server, and all in either mode."""
    of_servers: dict[str, int] = {}
    for item in found:
        of_servers[item["server"]] = of_servers.get(item["server"], 0) + tokens_of(item)
    listed = [{**item, "tokens": tokens_of(item)} for item in items]
    totals = {"full": sum(of_servers.values()), "search": tokens_of_search(len(found)), "servers": of_servers}
    return {"tools": listed, "tokens": totals}


def tokens_of_search(count: int) -> int:
    """What the four tools take that stand for so many."""
    return sum(map(tokens_of, definitions(names_of(()), count)))


def _with_server(kind: str, view: View, query: ListQuery) -> list[Any]:
    return [{**item, "server": server.name} for server, item in view.items(kind) if query.takes(server, item)]


async def _current(call: Call, name: str) -> Server:
    """The server as the registry has it now."""
    await call.gateway.sync.catch_up()
    return call.gateway.sync.catalogue.whole.server(name)


def _server_name(fields: Mapping[str, Any]) -> str:
    name = fields.get("name", fields.get("server_id"))
    if not isinstance(name, str):
        raise InvalidParams("'name' must be a string, the server's name.", "name")
    return name


def _only_name(fields: Mapping[str, Any]) -> str:
    for each in fields:
        if each not in ("name", "server_id", "_meta"):
            raise InvalidParams(f"There is no parameter {each[:64]!r}; send the server's 'name'.", each[:64])
    name = _server_name(fields)
    if not is_name(name):
        raise UnknownServer(name)
    return name


METHODS: dict[str, Handler] = {
    "mcp.servers.register": register_server,
    "mcp.servers.list": list_servers,
    "mcp.servers.get": get_server,
    "mcp.servers.update": update_server,
    "mcp.servers.remove": remove_server,
    "mcp.servers.refresh": refresh_server,
}
