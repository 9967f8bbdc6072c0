"""JSON-RPC outside MCP: `/rpc`, and JSON-RPC bodies at the REST addresses. No session; a hang-up cancels."""

from __future__ import annotations

from gateway.edge.mcp import NOBODY, answer, answer_batch
from gateway.edge.request import Http, Protocol
from gateway.edge.response import Response, send_empty
from gateway.methods.call import Call
from gateway.methods.services import Gateway
from gateway.methods.views import view_of
from gateway.model.principals import Principal
from gateway.protocol.messages import Batch, Request, from_json, parse


async def serve(gateway: Gateway, http: Http, principal: Principal) -> None:
    """JSON-RPC 2.0: every method, single or in batches, without a session."""
    http.accepts()
    value = parse(await http.read_body(gateway.settings.max_body, gateway.settings.body_seconds))
    await take(gateway, http, principal, "rpc", value)


async def serve_toolset(gateway: Gateway, http: Http, principal: Principal, slug: str) -> None:
    """JSON-RPC 2.0: MCP's methods on what a toolset holds, single or in batches, without a session."""
    http.accepts()
    value = parse(await http.read_body(gateway.settings.max_body, gateway.settings.body_seconds))
    await take(gateway, http, principal, "toolset", value, slug)


async def take(
    gateway: Gateway, http: Http, principal: Principal, table: str, value: object, toolset: str | None = None
) -> None:
    """Answer a JSON-RPC body, which was read, with the methods of one address."""
    http.protocol = Protocol.JSON_RPC
    how = http.accepts()
    message = from_json(value, gateway.settings.max_batch)
    view = await view_of(gateway, principal, toolset)
    if not isinstance(message, Request | Batch):
        await send_empty(http, 202)
        return
    request = message if isinstance(message, Request) else NOBODY
    response = Response(http, how, gateway.settings.keepalive_seconds)
    call = Call(
        gateway,
        principal,
        view,
        request,
        events=response,
        request_id=http.request_id,
        address=http.path,
        guard=http.guard,
    )
    if isinstance(message, Batch):
        await answer_batch(http, response, table, call, message)
    else:
        await answer(response, table, call)
