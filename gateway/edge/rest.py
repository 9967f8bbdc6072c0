"""The REST faces: servers, tool calls, resources, prompts. A JSON-RPC body at the same address works too.

Each face reads a plain JSON object, invokes the same method as JSON-RPC does, and shows its outcome as a document or
as a problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from gateway.edge import lists, rpc
from gateway.edge.request import Accepts, Http
from gateway.edge.response import Response, problem, send_bytes, send_problem
from gateway.errors import BadQuery, InvalidParams
from gateway.methods.call import Call, Outcome, Present, invoke
from gateway.methods.services import Gateway
from gateway.methods.table import METHODS
from gateway.methods.views import view_of
from gateway.model.principals import Principal, has_role
from gateway.model.server_fields import identified
from gateway.model.view import View
from gateway.protocol.messages import Notification, Reply, Request, dump, parse
from gateway.protocol.sse import encode_event

_ID = "rest"  # REST has no request ids; upstream ids are the gateway's own
_DOCUMENT_BODY = 8 << 20  # bytes: a document of 5 MiB as a text in JSON
_EVENTS = {"notifications/progress": "progress", "notifications/message": "log"}
_SERVER_METHODS = {
    "GET": "mcp.servers.get",
    "HEAD": "mcp.servers.get",
    "PUT": "mcp.servers.replace",
    "PATCH": "mcp.servers.update",
    "DELETE": "mcp.servers.remove",
}


async def servers(gateway: Gateway, http: Http, principal: Principal) -> None:
    """The live list of servers, and registration: 200, also for the very same specification again."""
    if http.method != "POST":
        await lists.serve(gateway, http, principal, kind="servers")
        return
    fields = await read_fields(gateway, http, principal, "servers")
    if fields is not None:
        await manage(gateway, http, principal, "mcp.servers.register", fields)


async def server(gateway: Gateway, http: Http, principal: Principal, name: str) -> None:
    """One server: show, create or replace, change, remove."""
    http.accepts()
    fields: dict[str, Any] = {}
    if http.method in ("PUT", "PATCH"):
        fields = dict(identified(as_object(parse(await _read(gateway, http, principal, "servers")))))
    if fields.pop("name", name) != name or fields.pop("server_id", name) != name:
        raise InvalidParams("The name in the body is not the one in the address.", "name")
    fields["name"] = name
    await manage(gateway, http, principal, _SERVER_METHODS[http.method], fields)


async def refresh(gateway: Gateway, http: Http, principal: Principal, name: str) -> None:
    """Ask the server now what it offers (otherwise every minute)."""
    await manage(gateway, http, principal, "mcp.servers.refresh", {"name": name})


async def import_servers(gateway: Gateway, http: Http, principal: Principal) -> None:
    """Servers of another product's file: `{"text", "values", "dry_run", "replace", "only"}`."""
    fields = await read_fields(gateway, http, principal, "servers")
    if fields is not None:
        await manage(gateway, http, principal, "mcp.servers.import", fields)


async def preview_document(gateway: Gateway, http: Http, principal: Principal) -> None:
    """The tools that an OpenAPI document would give: `{"spec" or "spec_url", "base_url", "include", "exclude"}`."""
    fields = await read_fields(gateway, http, principal, "servers")
    if fields is not None:
        await manage(gateway, http, principal, "mcp.openapi.preview", fields)


async def export_servers(gateway: Gateway, http: Http, principal: Principal) -> None:
    """All registrations, as the import takes them, without secrets."""
    http.accepts()
    await manage(gateway, http, principal, "mcp.servers.export", query_fields(http, ()))


async def changes(gateway: Gateway, http: Http, principal: Principal, name: str) -> None:
    """What the server changed since it was approved."""
    http.accepts()
    query = query_fields(http, ("limit", "cursor"))
    await manage(gateway, http, principal, "mcp.servers.changes", {"name": name, **query})


async def approve(gateway: Gateway, http: Http, principal: Principal, name: str) -> None:
    """Approve what the server changed: `{"tools": […], "digest": "…"}`, or all of it without a body."""
    fields = await optional_fields(gateway, http)
    if fields.pop("name", name) != name:
        raise InvalidParams("The name in the body is not the one in the address.", "name")
    await manage(gateway, http, principal, "mcp.servers.approve", {**fields, "name": name})


async def digests(gateway: Gateway, http: Http, principal: Principal, name: str) -> None:
    """The digests of the tools that the server offers, as a lock file keeps them; with POST it is asked first."""
    http.accepts()
    await manage(gateway, http, principal, "mcp.servers.digests", {"name": name, "refresh": http.method == "POST"})


async def manage(
    gateway: Gateway, http: Http, principal: Principal, method: str, fields: Mapping[str, Any], status: int = 200
) -> None:
    """Carry out one change or question of our own methods, and answer with its document."""
    outcome, body = await invoke(METHODS["rest"], _call(gateway, http, principal, method, fields), _result)
    if outcome.error is not None:
        outcome.error.logged = True
        raise outcome.error
    await send_bytes(http, status, body)


async def tools_call(gateway: Gateway, http: Http, principal: Principal, toolset: str | None = None) -> None:
    """Call a tool: `{"name", "arguments"}` gives `{"server", "tool", "result"}`."""
    fields = await read_fields(gateway, http, principal, "tools/call", toolset)
    if fields is None:
        return
    view = await view_of(gateway, principal, toolset)

    def present(outcome: Outcome) -> bytes:
        if outcome.reply is None:
            return _result(outcome)
        server, local = outcome.reached.named or "", outcome.reached.tool or ""
        found = gateway.sync.catalogue.servers.get(server)
        names = found.names.get("tools", {}) if found is not None else {}
        public = view.public_name("tools", found, local) if found and local in names else local
        parts = b'{"server":', dump(server), b',"tool":', dump(public), b',"result":', _json(outcome.reply), b"}"
        return b"".join(parts)

    await _answer(gateway, http, _call(gateway, http, principal, "tools/call", _tool_params(fields), view), present)


async def resources_read(gateway: Gateway, http: Http, principal: Principal, toolset: str | None = None) -> None:
    """Read a resource: `{"uri"}` gives MCP's result."""
    await _plain(gateway, http, principal, "resources/read", "uri", toolset)


async def prompts_get(gateway: Gateway, http: Http, principal: Principal, toolset: str | None = None) -> None:
    """Get a prompt: `{"name", "arguments"}` gives MCP's result."""
    await _plain(gateway, http, principal, "prompts/get", "name", toolset)


async def _plain(
    gateway: Gateway, http: Http, principal: Principal, method: str, required: str, toolset: str | None
) -> None:
    fields = await read_fields(gateway, http, principal, method, toolset)
    if fields is None:
        return
    if required not in fields:
        raise InvalidParams(f"The field {required!r} is required.", required)
    view = await view_of(gateway, principal, toolset)
    await _answer(gateway, http, _call(gateway, http, principal, method, fields, view), _result)


async def _answer(gateway: Gateway, http: Http, call: Call, present: Present) -> None:
    """Answer a call as one document, or as events: `progress` and `log`, then `result` or `error`."""
    how = http.accepts()
    with Response(http, how, gateway.settings.keepalive_seconds) as response:
        if response.is_stream:
            await response.commit()
        call.wants_progress, call.events = how is not Accepts.JSON, _Events(response)
        outcome, body = await invoke(METHODS["rest"], call, present)
        if (error := outcome.error) is not None:
            await response.finish_as("error", body, lambda: send_problem(http, error))
        else:
            await response.finish_as("result", body, lambda: send_bytes(http, 200, body))


class _Events:
    """Shows progress and log messages as events of their own names."""

    __slots__ = ("_response",)

    def __init__(self, response: Response) -> None:
        self._response = response

    async def on_stream(self) -> None:
        pass

    async def on_interruption(self) -> None:
        pass

    async def on_message(self, message: Notification | Request) -> None:
        if isinstance(message, Notification) and message.method in _EVENTS:
            await self._response.event(encode_event(dump(message.params), name=_EVENTS[message.method]))


def _result(outcome: Outcome) -> bytes:
    """The presenter of REST: the result's document, or the problem."""
    if outcome.error is not None:
        return dump(problem(outcome.error))
    return b"null" if outcome.reply is None else bytes(_json(outcome.reply))


def _json(reply: Reply) -> bytes | memoryview:
    return dump(reply.result) if reply.raw is None else reply.raw


async def read_fields(
    gateway: Gateway, http: Http, principal: Principal, table: str, toolset: str | None = None
) -> dict[str, Any] | None:
    """The REST body's fields, or None after a JSON-RPC body was answered as such."""
    value = parse(await _read(gateway, http, principal, table))
    if isinstance(value, list) or (isinstance(value, dict) and "jsonrpc" in value):
        await rpc.take(gateway, http, principal, table, value, toolset)
        return None
    http.accepts()
    return as_object(value)


async def read_body(gateway: Gateway, http: Http) -> bytes:
    return await http.read_body(gateway.settings.max_body, gateway.settings.body_seconds)


async def _read(gateway: Gateway, http: Http, principal: Principal, table: str) -> bytes:
    """The body; one that registers a server may hold an OpenAPI document."""
    room = _DOCUMENT_BODY if table == "servers" and has_role(principal, "operator") else 0
    return await http.read_body(max(gateway.settings.max_body, room), gateway.settings.body_seconds)


async def optional_fields(gateway: Gateway, http: Http) -> dict[str, Any]:
    """The fields of a body that need not be there."""
    http.accepts()
    body = await read_body(gateway, http)
    return as_object(parse(body)) if body.strip() else {}


def query_fields(http: Http, known: tuple[str, ...]) -> dict[str, Any]:
    """The parameters in the URL. Raises BadQuery for one that the address does not take."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(http.query.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            raise BadQuery(f"There is no parameter {name[:64]!r}; this address takes {', '.join(known)}.", name[:64])
        is_number = name == "limit" and value.isascii() and value.isdigit() and len(value) < 9
        found[name] = int(value) if is_number else value
    return found


def as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidParams("The body must be a JSON object.")
    return value


def _tool_params(fields: dict[str, Any]) -> dict[str, Any]:
    for field in fields:
        if field not in ("name", "tool_name", "arguments", "_meta"):
            raise InvalidParams(f"There is no field {field[:64]!r}; send 'name' and 'arguments'.", field[:64])
    name = fields.pop("tool_name", None)
    if "name" not in fields and name is None:
        raise InvalidParams("The field 'name' is required: the tool's name.", "name")
    if name is not None and fields.setdefault("name", name) != name:
        raise InvalidParams("'tool_name' is an alias of 'name', and the two differ.", "tool_name")
    return fields


def _call(
    gateway: Gateway,
    http: Http,
    principal: Principal,
    method: str,
    params: Mapping[str, Any],
    view: View | None = None,
) -> Call:
    request = Request(_ID, method, params)
    view = view or gateway.sync.catalogue.view(principal.grants)
    return Call(gateway, principal, view, request, request_id=http.request_id, address=http.path, guard=http.guard)
