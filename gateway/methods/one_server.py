"""MCP at one server's address, `/mcp/servers/{name}/mcp`: transparent. Its own names, lists, cursors and capabilities.

The stored lists answer only when the server does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.errors import (
    InvalidParams,
    OutcomeUnknown,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.methods.all_servers import UNREACHABLE_META, check_arguments, ping, unreachable
from gateway.methods.call import Call, Handler
from gateway.methods.listed import check_listed
from gateway.model.catalogue import Target
from gateway.model.kinds import KINDS
from gateway.model.server import Server
from gateway.protocol import versions
from gateway.protocol.messages import Reply


async def _addressed(call: Call) -> Server:
    name = call.server or ""
    return await call.find(lambda catalogue: catalogue.enabled_server(name, call.principal))


async def initialize(
    call: Call, /, protocolVersion: Any, capabilities: Any = None, clientInfo: Any = None, **_: Any
) -> Mapping[str, Any]:
    """Open a session with one server: what it says of itself is passed on."""
    if not isinstance(protocolVersion, str):
        raise InvalidParams("'protocolVersion' must be a string.", "protocolVersion")
    server = await _addressed(call)
    known: Any = server.offers if server.offers.version else await call.gateway.pool[server].handshake()
    result = {
        "protocolVersion": versions.negotiate(protocolVersion),
        "capabilities": versions.forwardable(known.capabilities),
        "serverInfo": known.server_info or {"name": server.name, "version": "unknown"},
    }
    return result if known.instructions is None else result | {"instructions": known.instructions}


async def forward(call: Call, /, **params: Any) -> Reply:
    """Pass a request on as it is."""
    return await call.forward(await _addressed(call), params)


async def tools_call(call: Call, /, name: Any = None, **params: Any) -> Reply:
    """Pass a tool call on, if its arguments pass where the server wants them checked."""
    server = await _addressed(call)
    await check_listed(call, server, "tools", name)
    if isinstance(name, str) and server.spec.validate_arguments:
        refused = check_arguments(call, Target(server, name))
        if refused is not None:
            return refused
    if isinstance(name, str) and name in server.names.get("tools", ()):  # a name that a caller makes up makes no figure
        call.reached.tool = name
    return await call.forward(server, call.request.params)


async def prompts_get(call: Call, /, name: Any = None, **params: Any) -> Reply:
    """Pass the request for a prompt on."""
    server = await _addressed(call)
    await check_listed(call, server, "prompts", name)
    return await call.forward(server, call.request.params)


async def set_level(call: Call, /, level: Any = None, **params: Any) -> Reply:
    """Pass a log level on, and remember it for upstream sessions to come."""
    session = call.in_session()
    reply = await call.forward(await _addressed(call), call.request.params)
    if isinstance(level, str):
        await session.remember_level(level)
    return reply


def _subscribing(*, to: bool) -> Handler:
    async def subscribe(call: Call, /, uri: Any = None, **params: Any) -> Reply:
        session, server = call.in_session(), await _addressed(call)
        if to and isinstance(uri, str):
            session.check_subscription(server.name, uri, call.gateway.settings.max_subscriptions)
        reply = await call.forward(server, call.request.params)
        if isinstance(uri, str):
            await session.subscribed(server.name, uri, to=to)
        return reply

    return subscribe


def _listing(kind: str) -> Handler:
    key = KINDS[kind].key

    async def list_items(call: Call, /, **params: Any) -> Reply | Mapping[str, Any]:
        server = await _addressed(call)
        try:
            return await call.forward(server, params)
        except (UpstreamUnreachable, UpstreamTimeout, UpstreamProtocolError, OutcomeUnknown):
            if not server.offers.version or params.get("cursor"):
                raise
            meta = {UNREACHABLE_META: unreachable([replace(server, state="unreachable")])}
            return {key: list(getattr(server.offers, kind)), "_meta": meta}

    return list_items


METHODS: dict[str, Handler] = {
    "initialize": initialize,
    "ping": ping,
    "tools/list": _listing("tools"),
    "tools/call": tools_call,
    "resources/list": _listing("resources"),
    "resources/templates/list": _listing("templates"),
    "resources/read": forward,
    "prompts/list": _listing("prompts"),
    "prompts/get": prompts_get,
    "completion/complete": forward,
    "resources/subscribe": _subscribing(to=True),
    "resources/unsubscribe": _subscribing(to=False),
    "logging/setLevel": set_level,
}
