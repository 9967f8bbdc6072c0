"""MCP at the aggregate, `/mcp` and `/rpc`, and at toolsets: what each method does with all that the caller may see.

Lists come from the catalogue, calls go where a public name leads. Source: MCP 2025-11-25, server features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway import version
from gateway.errors import InvalidParams, ToolChanged
from gateway.methods.call import Call, Handler
from gateway.methods.results import definition as read_result_definition
from gateway.methods.results import fitted, forward_or_recall, read_result, reader_name
from gateway.methods.tool_search import call_meta_tool, instructed, list_few, searching
from gateway.model.kinds import KINDS
from gateway.model.listing import ListQuery
from gateway.model.overrides import Rewrite
from gateway.model.parts import Target
from gateway.model.server import Server
from gateway.protocol import versions
from gateway.protocol.messages import Reply, dump

UNREACHABLE_META = "io.mcp-gateway/unreachable"
_WITHOUT_URI = frozenset({"text", "image", "audio"})
"""Content blocks that name no resource."""


async def initialize(
    call: Call, /, protocolVersion: Any, capabilities: Any = None, clientInfo: Any = None, **_: Any
) -> Mapping[str, Any]:
    """Open a session with the gateway itself (MCP, lifecycle)."""
    if not isinstance(protocolVersion, str):
        raise InvalidParams("'protocolVersion' must be a string.", "protocolVersion")
    toolset = call.view.toolset
    title = "MCP gateway" if toolset is None else toolset.spec.title or toolset.slug
    return {
        "protocolVersion": versions.negotiate(protocolVersion),
        "capabilities": versions.AGGREGATE_CAPABILITIES,
        "serverInfo": {"name": version.NAME, "title": title, "version": version.VERSION},
        "instructions": await _instructions(call),
    }


async def _instructions(call: Call) -> str:
    tools = await searching(call)
    text = _own_instructions(call)
    return text if tools is None else instructed(text, tools)


def _own_instructions(call: Call) -> str:
    toolset, servers = call.view.toolset, call.view.visible()
    if toolset is not None and toolset.spec.instructions is not None:
        return toolset.spec.instructions
    listed = "; ".join(
        f"{server.name}: {(server.spec.description or server.spec.title or '').strip()[:120]}".rstrip(": ")
        for server in servers[:50]
    )
    more = f"; and {len(servers) - 50} more" if len(servers) > 50 else ""
    names = "" if toolset is not None else f", as <server>{call.gateway.settings.separator}<tool>"
    return f"Tools of several MCP servers{names}. Servers: {listed}{more}."


async def ping(call: Call, /, **_: Any) -> Mapping[str, Any]:
    """Answer that we are here."""
    return {}


def _listing(kind: str) -> Handler:
    key, identity = KINDS[kind].key, KINDS[kind].identity

    async def list_items(call: Call, /, cursor: Any = None, **_: Any) -> Reply | Mapping[str, Any]:
        reader = reader_name(call) if kind == "tools" else None
        if kind == "tools" and (tools := await searching(call)) is not None:
            return list_few(call, tools, reader)
        cursors, view = call.gateway.cursors, call.view
        after = cursors.read(cursor)

        def encode() -> bytes:
            items = view.items(kind)
            size = call.gateway.settings.page_size
            rest = [item for _, item in items if after is None or item[identity] > after]
            result: dict[str, Any] = {key: rest[:size]}
            if len(rest) > size:
                result["nextCursor"] = cursors.after(rest[size - 1][identity])
            elif reader is not None:
                result[key].append(read_result_definition(reader))
            if down := unreachable(view.visible()):
                result["_meta"] = {UNREACHABLE_META: down}
            return dump(result)

        return Reply(call.request.id, None, view.encoded((kind, after), encode))

    list_items.__doc__ = f"List the {kind} of all servers, a page at a time."
    return list_items


def _filtered(kind: str) -> Handler:
    """The same list outside MCP (`/rpc`), which takes a filter and a limit as the REST lists do."""
    key, identity = KINDS[kind].key, KINDS[kind].identity

    async def list_items(call: Call, /, **params: Any) -> Mapping[str, Any]:
        query = ListQuery.from_params(params, call.gateway.cursors)
        if query.limit is None:
            query = replace(query, limit=call.gateway.settings.page_size)
        found = [item for server, item in call.view.items(kind) if query.takes(server, item)]
        items, last = query.page(found, lambda item: str(item[identity]))
        result: dict[str, Any] = {key: items, "total": len(found)}
        if last is not None:
            result["nextCursor"] = call.gateway.cursors.after(last)
        if down := unreachable(call.view.visible()):
            result["_meta"] = {UNREACHABLE_META: down}
        return result

    return list_items


def unreachable(servers: list[Server]) -> list[dict[str, Any]]:
    """Whose items are the last known ones: since when, and why."""
    return [last_known(server) for server in servers if server.state == "unreachable"]


def last_known(server: Server) -> dict[str, Any]:
    """Since when, and why, a server's items are the last known ones."""
    return {
        "server": server.name,
        "reason": server.reason,
        "since": server.unreachable_since,
        "discovered_at": server.discovered_at,
    }


async def tools_call(call: Call, /, name: Any, arguments: Any = None, **_: Any) -> Reply:
    """Call the tool that a public or bare name leads to. Raises InvalidParams, UnknownTool or AmbiguousName."""
    if not isinstance(name, str):
        raise InvalidParams("'name' must be a string, the tool's name.", "name")
    if not (arguments is None or isinstance(arguments, dict)):
        raise InvalidParams("'arguments' must be an object.", "arguments")
    target = call.view.public["tools"].get(name)
    if target is None:
        if (tools := await searching(call)) is not None:
            answer = await call_meta_tool(call, tools, name, arguments, tools_call)
            if answer is not None:
                return answer
        if name == reader_name(call):
            return await read_result(call, arguments)
        target = await call.find(lambda view: view.tool(name))
    server, local, overridden, reached = target.server, target.local, target.overridden, call.reached
    reached.named, reached.tool = server.name, local
    if target.is_held:
        raise ToolChanged(name, server.name)
    if server.spec.validate_arguments and (refused := check_arguments(call, target)) is not None:
        return refused
    params = {**call.request.params, "name": local}
    if overridden is not None and overridden.rewrite is not None:
        params["arguments"] = outward_arguments(call, target, overridden.rewrite)
    elif arguments is None:  # null is as good as none
        params.pop("arguments", None)
    if overridden is None:
        return _linked(call, target, await call.forward(server, params), "content")
    return await fitted(call, target, _linked(call, target, await forward_or_recall(call, target, params), "content"))


def _linked(call: Call, target: Target, reply: Reply, key: str) -> Reply:
    """The same result, its resources under the URIs that lead to them here; untouched where they are the same."""
    if reply.large is not None and not reply.large.may_link:
        return reply
    blocks = reply.result.get(key) if isinstance(reply.result, dict) else None
    if not isinstance(blocks, list):
        return reply
    for block in blocks:
        if not isinstance(block, dict) or block.get("type") not in _WITHOUT_URI:
            break
    else:
        return reply
    linked = [_block(call, target.server.name, block) for block in blocks]
    if all(now is before for now, before in zip(linked, blocks, strict=True)):
        return reply
    return Reply(reply.id, {**reply.result, key: linked})


def _block(call: Call, server: str, block: Any) -> Any:
    """One content block, or one message of a prompt around it; a link must lead somewhere, a copy need not."""
    match block:
        case {"type": "resource_link", "uri": str(uri)}:
            public = call.gateway.sync.catalogue.public_uri(server, uri)
            return block if public == uri else {**block, "uri": public}
        case {"type": "resource", "resource": {"uri": str(uri), **rest}}:
            public = call.gateway.sync.catalogue.renamed_uris(server).get(uri, uri)
            return block if public == uri else {**block, "resource": {"uri": public, **rest}}
        case {"role": _, "content": content}:
            changed = _block(call, server, content)
            return block if changed is content else {**block, "content": changed}
    return block


def _renamed_params(call: Call, target: Target) -> Mapping[str, Any]:
    """The caller's params with the local name; `arguments` that are null are as good as none."""
    params = {**call.request.params, "name": target.local}
    if params.get("arguments", ...) is None:
        del params["arguments"]
    return params


def outward_arguments(call: Call, target: Target, rewrite: Rewrite) -> dict[str, Any]:
    """What a server gets in place of a caller's arguments. Raises InvalidParams or UpstreamUnreachable."""
    sent = rewrite.outward(call.request.params.get("arguments"))
    if rewrite.is_secret:  # of what callers send nothing is filled in
        references, server = call.gateway.references, target.server.name
        sent |= {name: references.argument(server, value) for name, value in rewrite.fixed.items()}
    return sent


def check_arguments(call: Call, target: Target) -> Reply | None:
    """What is wrong with a call's arguments, as a tool's own error that names the fields; None for nothing."""
    arguments = call.request.params.get("arguments")
    given = arguments if isinstance(arguments, Mapping) else {}
    wrong = call.gateway.arguments.wrong(target, given)
    if not wrong:
        return None
    text = f"Invalid arguments for {target.local!r}: {'; '.join(wrong)}"
    return Reply(call.request.id, {"content": [{"type": "text", "text": text}], "isError": True})


async def prompts_get(call: Call, /, name: Any, arguments: Any = None, **_: Any) -> Reply:
    """Get the prompt that a public or bare name leads to."""
    if not isinstance(name, str):
        raise InvalidParams("'name' must be a string, the prompt's name.", "name")
    if not (arguments is None or isinstance(arguments, dict)):
        raise InvalidParams("'arguments' must be an object.", "arguments")
    target = await call.find(lambda view: view.prompt(name))
    return _linked(call, target, await call.forward(target.server, _renamed_params(call, target)), "messages")


async def resources_read(call: Call, /, uri: Any, **_: Any) -> Reply:
    """Read the resource that a URI leads to; its contents come back under the URI that was asked for."""
    if not isinstance(uri, str):
        raise InvalidParams("'uri' must be a string.", "uri")
    target = await call.find(lambda view: view.resource(uri))
    reply = await call.forward(target.server, {**call.request.params, "uri": target.local})
    return reply if target.local == uri else _renamed(reply, target.local, uri)


def _renamed(reply: Reply, local: str, public: str) -> Reply:
    contents = reply.result.get("contents") if isinstance(reply.result, dict) else None
    if not isinstance(contents, list):
        return reply
    renamed = [
        {**content, "uri": public} if isinstance(content, dict) and content.get("uri") == local else content
        for content in contents
    ]
    return Reply(reply.id, {**reply.result, "contents": renamed})


async def completion_complete(call: Call, /, ref: Any, argument: Any = None, **_: Any) -> Reply:
    """Complete an argument of the prompt or resource template that `ref` names."""
    match ref:
        case {"type": "ref/prompt", "name": str(name)}:
            target = await call.find(lambda view: view.prompt(name))
            local = {**ref, "name": target.local}
        case {"type": "ref/resource", "uri": str(uri)}:
            target = await call.find(lambda view: view.template(uri))
            local = {**ref, "uri": target.local}
        case _:
            raise InvalidParams("'ref' must be a ref/prompt with a name or a ref/resource with a uri.", "ref")
    return await call.forward(target.server, {**call.request.params, "ref": local})


async def set_level(call: Call, /, level: Any = None, **_: Any) -> Mapping[str, Any]:
    """Set how much every server of the session logs."""
    session = call.in_session()
    if level not in versions.LOG_LEVELS:
        raise InvalidParams(f"'level' must be one of {', '.join(versions.LOG_LEVELS)}.", "level")
    await session.set_level(level)
    return {}


def _subscribing(*, to: bool) -> Handler:
    async def subscribe(call: Call, /, uri: Any = None, **_: Any) -> Reply:
        session = call.in_session()
        if not isinstance(uri, str):
            raise InvalidParams("'uri' must be a string.", "uri")
        target = await call.find(lambda view: view.resource(uri))
        if to:
            session.check_subscription(target.server.name, target.local, call.gateway.settings.max_subscriptions)
        reply = await call.forward(target.server, {**call.request.params, "uri": target.local})
        await session.subscribed(target.server.name, target.local, to=to)
        return reply

    subscribe.__doc__ = f"{'Hear' if to else 'Hear no more'} of changes of the resource that a URI leads to."
    return subscribe


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

OUTSIDE_MCP: dict[str, Handler] = METHODS | {
    "tools/list": _filtered("tools"),
    "resources/list": _filtered("resources"),
    "resources/templates/list": _filtered("templates"),
    "prompts/list": _filtered("prompts"),
}
"""What `/rpc` serves of MCP's methods."""
