"""MCP at one server's address, `/mcp/servers/{name}/mcp`: transparent. Its own names, lists, cursors and capabilities.

The stored lists answer only when the server does not, and where not all of the server may be seen, by its grants or its
lock: callers then get what their view holds of it, under the server's own names, and nothing that a server says of
itself as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import (
    InvalidParams,
    OutcomeUnknown,
    ToolChanged,
    UnknownPrompt,
    UnknownResource,
    UnknownTool,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.methods.all_servers import (
    UNREACHABLE_META,
    check_arguments,
    last_known,
    outward_arguments,
    ping,
    unreachable,
)
from gateway.methods.call import Call, Handler
from gateway.methods.listed import check_listed
from gateway.methods.results import definition as read_result_definition
from gateway.methods.results import fitted, forward_or_recall, read_result, reader_name
from gateway.methods.tool_search import call_meta_tool, instructed, list_few, searching
from gateway.model.kinds import KINDS
from gateway.model.names import near
from gateway.model.parts import Part
from gateway.model.server import Server
from gateway.model.view import local_uri
from gateway.protocol import versions
from gateway.protocol.messages import Reply, dump

_UNKNOWN = {"tools": UnknownTool, "prompts": UnknownPrompt}


async def _addressed(call: Call) -> tuple[Server, Part]:
    """The server of the address, and what the caller sees of it. Raises UnknownServer or ServerDisabled."""
    name = call.server or ""
    return await call.find(lambda view: (view.enabled_server(name), view.parts[name]))


async def initialize(
    call: Call, /, protocolVersion: Any, capabilities: Any = None, clientInfo: Any = None, **_: Any
) -> Mapping[str, Any]:
    """Open a session with one server: what it says of itself is passed on."""
    if not isinstance(protocolVersion, str):
        raise InvalidParams("'protocolVersion' must be a string.", "protocolVersion")
    server, part = await _addressed(call)
    known: Any = server.offers if server.offers.version else await call.gateway.pool[server].handshake()
    result = {
        "protocolVersion": versions.negotiate(protocolVersion),
        "capabilities": versions.forwardable(known.capabilities),
        "serverInfo": known.server_info or {"name": server.name, "version": "unknown"},
    }
    told = known.instructions if part.is_whole else None  # they speak of everything that it has
    if (tools := await searching(call)) is not None:
        told = instructed(told, tools)
    return result if told is None else result | {"instructions": told}


async def _check_name(call: Call, part: Part, kind: str, name: object) -> None:
    """Let a tool or prompt pass that the caller may use. Raises UnknownTool, UnknownPrompt or UpstreamError."""
    if kind not in part.locals:
        await check_listed(call, part.server, kind, name)
    elif not (isinstance(name, str) and name in part.locals[kind]):
        error = _UNKNOWN[kind](str(name))
        error.suggest(near(error.name, part.locals[kind]))
        raise error


def _local_params(part: Part, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The params with the URI as it is passed on. Raises UnknownResource for one that may not be seen."""
    uri = params.get("uri")
    if part.grants is None:
        return params
    local = local_uri(part, uri) if isinstance(uri, str) else None
    if local is None:
        raise UnknownResource(str(uri))
    return {**params, "uri": local}


async def resources_read(call: Call, /, **params: Any) -> Reply:
    """Pass the request for a resource on."""
    server, part = await _addressed(call)
    return await call.forward(server, _local_params(part, call.request.params))


async def completion_complete(call: Call, /, ref: Any = None, **params: Any) -> Reply:
    """Pass a completion on, of a prompt or a template that the caller may use."""
    server, part = await _addressed(call)
    if part.grants is None:
        return await call.forward(server, call.request.params)
    match ref:
        case {"type": "ref/prompt", "name": str(name)}:
            await _check_name(call, part, "prompts", name)
        case {"type": "ref/resource", "uri": str(uri)}:
            local = uri if part.sees("templates", uri) else local_uri(part, uri)
            if local is None:
                raise UnknownResource(uri)
            return await call.forward(server, {**call.request.params, "ref": {**ref, "uri": local}})
        case _:
            raise InvalidParams("'ref' must be a ref/prompt with a name or a ref/resource with a uri.", "ref")
    return await call.forward(server, call.request.params)


async def tools_call(call: Call, /, name: Any = None, **params: Any) -> Reply:
    """Pass a tool call on, if its arguments pass where the server wants them checked."""
    server, part = await _addressed(call)
    if isinstance(name, str) and (tools := await searching(call)) is not None:
        answer = await call_meta_tool(call, tools, name, call.request.params.get("arguments"), tools_call)
        if answer is not None:
            return answer
    if part.overridden and isinstance(name, str) and name == reader_name(call):
        return await read_result(call, call.request.params.get("arguments"))
    target = part.tool(name) if isinstance(name, str) else None
    if part.overridden and isinstance(name, str):
        if target is None:
            raise _unknown_tool(part, name)
    else:
        await _check_name(call, part, "tools", name)
    if target is None:
        return await call.forward(server, call.request.params)
    if target.is_held:
        raise ToolChanged(str(name), server.name)
    if target.overridden is not None and not isinstance(call.request.params.get("arguments"), dict | None):
        raise InvalidParams("'arguments' must be an object.", "arguments")
    if server.spec.validate_arguments and (refused := check_arguments(call, target)) is not None:
        return refused
    if target.local in server.names.get("tools", ()):  # a name that a caller makes up makes no figure
        call.reached.tool = target.local
    sent = call.request.params
    if target.overridden is not None:
        sent = {**sent, "name": target.local}
        if target.overridden.rewrite is not None:
            sent["arguments"] = outward_arguments(call, target, target.overridden.rewrite)
    if target.overridden is None:
        return await call.forward(server, sent)
    return await fitted(call, target, await forward_or_recall(call, target, sent))


def _unknown_tool(part: Part, name: str) -> UnknownTool:
    error = UnknownTool(name)
    error.suggest(near(name, [item["name"] for item in part.listed("tools")]))
    return error


async def prompts_get(call: Call, /, name: Any = None, **params: Any) -> Reply:
    """Pass the request for a prompt on."""
    server, part = await _addressed(call)
    await _check_name(call, part, "prompts", name)
    return await call.forward(server, call.request.params)


async def set_level(call: Call, /, level: Any = None, **params: Any) -> Reply:
    """Pass a log level on, and remember it for upstream sessions to come."""
    session = call.in_session()
    server, _ = await _addressed(call)
    reply = await call.forward(server, call.request.params)
    if isinstance(level, str):
        await session.remember_level(level)
    return reply


def _subscribing(*, to: bool) -> Handler:
    async def subscribe(call: Call, /, uri: Any = None, **params: Any) -> Reply:
        session, (server, part) = call.in_session(), await _addressed(call)
        local = _local_params(part, call.request.params)
        uri = local.get("uri")
        if to and isinstance(uri, str):
            session.check_subscription(server.name, uri, call.gateway.settings.max_subscriptions)
        reply = await call.forward(server, local)
        if isinstance(uri, str):
            await session.subscribed(server.name, uri, to=to)
        return reply

    return subscribe


def _listing(kind: str) -> Handler:
    key = KINDS[kind].key

    async def list_items(call: Call, /, **params: Any) -> Reply | Mapping[str, Any]:
        server, part = await _addressed(call)
        if kind == "tools" and (tools := await searching(call)) is not None:
            return list_few(call, tools, reader_name(call))
        if not part.is_whole:
            return _listed(call, part, kind, params.get("cursor"))
        try:
            return await call.forward(server, params)
        except (UpstreamUnreachable, UpstreamTimeout, UpstreamProtocolError, OutcomeUnknown):
            if not server.offers.version or params.get("cursor"):
                raise
            meta = {UNREACHABLE_META: [last_known(server)]}
            return {key: list(server.listed(kind)), "_meta": meta}

    return list_items


def _listed(call: Call, part: Part, kind: str, cursor: Any) -> Reply:
    """A page of what the caller sees of a server's list, as the registry knows it."""
    what, cursors, size = KINDS[kind], call.gateway.cursors, call.gateway.settings.page_size
    after = cursors.read(cursor)

    def encode() -> bytes:
        items = sorted(part.listed(kind), key=lambda item: str(item[what.identity]))
        rest = [item for item in items if after is None or item[what.identity] > after]
        result: dict[str, Any] = {what.key: rest[:size]}
        if len(rest) > size:
            result["nextCursor"] = cursors.after(rest[size - 1][what.identity])
        elif kind == "tools" and (reader := reader_name(call)) is not None:
            result[what.key].append(read_result_definition(reader))
        if down := unreachable([part.server]):
            result["_meta"] = {UNREACHABLE_META: down}
        return dump(result)

    if call.view.parts.get(part.server.name) is not part:  # looked up anew: of another catalogue than the call's
        return Reply(call.request.id, None, encode())
    return Reply(call.request.id, None, call.view.encoded((part.server.name, kind, after), encode))


METHODS: dict[str, Handler] = {
    "initialize": initialize,
    "ping": ping,
    "tools/list": _listing("tools"),
    "tools/call": tools_call,
    "resources/list": _listing("resources"),
    "resources/templates/list": _listing("templates"),
    "resources/read": resources_read,
    "prompts/list": _listing("prompts"),
    "prompts/get": prompts_get,
    "completion/complete": completion_complete,
    "resources/subscribe": _subscribing(to=True),
    "resources/unsubscribe": _subscribing(to=False),
    "logging/setLevel": set_level,
}
