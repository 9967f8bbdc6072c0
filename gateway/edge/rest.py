"""The REST faces: servers, tool calls, resources, prompts. A JSON-RPC body at the same address works too.

Each face reads a plain JSON object, calls the same handler as JSON-RPC does, and answers with a document or a problem.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from gateway.edge import lists
from gateway.edge import mcp as endpoint
from gateway.edge.answers import Answer
from gateway.edge.replies import (
    Accepts,
    Http,
    accepts,
    problem,
    read_body,
    send_bytes,
    send_problem,
    to_bytes,
)
from gateway.errors import ClientLeft, GatewayError, InvalidParams, MethodNotAllowed
from gateway.methods import all_servers as aggregate
from gateway.methods import servers as administration
from gateway.methods.call import Call, Handler, outcome_of, wire_error
from gateway.methods.services import Gateway
from gateway.model.principals import Principal
from gateway.model.server_fields import identified
from gateway.protocol.messages import Failure, Notification, Reply, Request, parse
from gateway.protocol.sse import encode_event
from gateway.upstream.contract import Answering, Interrupted

Document = tuple[Reply, Any]
"""What a call gave, and how it is shown."""

_ID = "rest"  # REST has no request ids; upstream ids are the gateway's own
_EVENTS = {"notifications/progress": "progress", "notifications/message": "log"}


async def servers(gateway: Gateway, http: Http, principal: Principal) -> None:
    """`/mcp/servers`: the live list, and registration."""
    if http.method != "POST":
        if http.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(http.method, ("GET", "HEAD", "POST"))
        await lists.serve(gateway, http, principal, "servers")
        return
    fields = await _fields(gateway, http, principal, "servers")
    if fields is not None:
        call = _call(gateway, http, principal, "mcp.servers.register", fields)
        await _managed(http, call, administration.register_server)


async def server(gateway: Gateway, http: Http, principal: Principal, name: str) -> None:
    """`/mcp/servers/{name}`: show, create or replace, change, remove."""
    handlers: Mapping[str, tuple[str, Handler]] = {
        "GET": ("mcp.servers.get", administration.get_server),
        "HEAD": ("mcp.servers.get", administration.get_server),
        "PUT": ("mcp.servers.replace", administration.replace_server),
        "PATCH": ("mcp.servers.update", administration.update_server),
        "DELETE": ("mcp.servers.remove", administration.remove_server),
    }
    if http.method not in handlers:
        raise MethodNotAllowed(http.method, tuple(handlers))
    accepts(http.headers)
    fields: dict[str, Any] = {}
    if http.method in ("PUT", "PATCH"):
        fields = _object(await _body(gateway, http))
    fields = dict(identified(fields))
    if fields.pop("name", name) != name or fields.pop("server_id", name) != name:
        raise InvalidParams("The name in the body is not the one in the address.", "name")
    fields["name"] = name
    method, handler = handlers[http.method]
    await _managed(http, _call(gateway, http, principal, method, fields), handler)


async def refresh(gateway: Gateway, http: Http, principal: Principal, name: str) -> None:
    """`/mcp/servers/{name}/refresh`: ask the upstream now."""
    _only_post(http)
    await _managed(
        http, _call(gateway, http, principal, "mcp.servers.refresh", {"name": name}), administration.refresh_server
    )


async def _managed(http: Http, call: Call, handler: Handler) -> None:
    """Carry out one change or question about the registry, and answer with its document."""
    try:
        body = to_bytes(await handler(call, **call.request.params))
    except GatewayError as error:
        call.done(outcome_of(Failure(None, *wire_error(error))), 0)
        error.logged = True
        raise
    call.done("ok", len(body))
    await send_bytes(http.send, 200, body)


async def tools_call(gateway: Gateway, http: Http, principal: Principal) -> None:
    """`/mcp/tools/call`: `{"name", "arguments"}` gives `{"server", "tool", "result"}`."""
    _only_post(http)
    fields = await _fields(gateway, http, principal, "tools/call")
    if fields is None:
        return
    params = _tool_params(fields)

    async def carry_out(call: Call) -> Document:
        target = await aggregate.find_tool(call, params["name"], params.get("arguments"))
        reply = await aggregate.call_tool(call, target)
        public = call.catalogue.public_name("tools", target.server, target.local)
        return reply, {"server": target.server.name, "tool": public, "result": _json(reply)}

    await _answer(gateway, http, _call(gateway, http, principal, "tools/call", params), carry_out)


async def resources_read(gateway: Gateway, http: Http, principal: Principal) -> None:
    """`/mcp/resources/read`: `{"uri"}` gives MCP's result."""
    await _plain(gateway, http, principal, "resources/read", aggregate.resources_read, "uri")


async def prompts_get(gateway: Gateway, http: Http, principal: Principal) -> None:
    """`/mcp/prompts/get`: `{"name", "arguments"}` gives MCP's result."""
    await _plain(gateway, http, principal, "prompts/get", aggregate.prompts_get, "name")


async def _plain(
    gateway: Gateway, http: Http, principal: Principal, method: str, handler: Handler, required: str
) -> None:
    _only_post(http)
    fields = await _fields(gateway, http, principal, method)
    if fields is None:
        return
    if required not in fields:
        raise InvalidParams(f"The field {required!r} is required.", required)

    async def carry_out(call: Call) -> Document:
        reply = await handler(call, **fields)
        return reply, _json(reply)

    await _answer(gateway, http, _call(gateway, http, principal, method, fields), carry_out)


async def _answer(gateway: Gateway, http: Http, call: Call, carry_out: Callable[[Call], Awaitable[Document]]) -> None:
    """Answer a call as one document, or as events: `progress` and `log`, then `result` or `error`."""
    how = accepts(http.headers)
    call.wants_progress = how is not Accepts.JSON
    async with Answer(http, how, gateway.settings.keepalive_seconds, cancels=True) as answer:

        async def tell(message: Answering | Interrupted | Notification | Request) -> None:
            if isinstance(message, Notification) and message.method in _EVENTS:
                await answer.event(encode_event(to_bytes(message.params), name=_EVENTS[message.method]))

        call.tell = tell
        try:
            reply, document = await carry_out(call)
            body = to_bytes(document)
            call.done(outcome_of(reply), len(body))
        except (asyncio.CancelledError, ClientLeft):
            call.done("cancelled", 0)
            raise
        except GatewayError as error:
            shown = error
            call.done(outcome_of(Failure(None, *wire_error(error))), 0)
            await answer.finish(
                lambda: encode_event(to_bytes(problem(shown)), name="error"), lambda: send_problem(http.send, shown)
            )
        else:
            await answer.finish(lambda: encode_event(body, name="result"), lambda: send_bytes(http.send, 200, body))


async def _fields(gateway: Gateway, http: Http, principal: Principal, table: str) -> dict[str, Any] | None:
    """The REST body's fields, or None after a JSON-RPC body was answered as such."""
    body = await _body(gateway, http)
    value = parse(body)
    if isinstance(value, list) or (isinstance(value, dict) and "jsonrpc" in value):
        await endpoint.rpc(gateway, http, principal, table, body)
        return None
    accepts(http.headers)
    return _object(value)


async def _body(gateway: Gateway, http: Http) -> Any:
    return await read_body(http, gateway.settings.max_body, gateway.settings.body_seconds)


def _object(body: Any) -> dict[str, Any]:
    value = parse(body) if isinstance(body, bytes) else body
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


def _json(reply: Reply) -> Any:
    return reply.result if reply.raw is None else orjson.Fragment(reply.raw)


def _call(gateway: Gateway, http: Http, principal: Principal, method: str, params: Mapping[str, Any]) -> Call:
    request = Request(_ID, method, params)
    return Call(gateway, principal, gateway.sync.catalogue, request, request_id=http.request_id)


def _only_post(http: Http) -> None:
    if http.method != "POST":
        raise MethodNotAllowed(http.method, ("POST",))
