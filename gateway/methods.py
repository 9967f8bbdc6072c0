"""THE method table: what each JSON-RPC method does, at each address. The only importer of jsonrpcserver.

A handler takes a Call and the method's params, returns a result, raises our errors. REST faces call the same
handlers; here they are dispatched by jsonrpcserver and their errors become JSON-RPC's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from jsonrpcserver import Result, Success
from jsonrpcserver.async_dispatcher import dispatch_request
from jsonrpcserver.exceptions import JsonRpcError
from jsonrpcserver.request import Request as LibraryRequest
from oslash.either import Left

from gateway import logs, version
from gateway.context import Gateway
from gateway.errors import (
    GatewayError,
    InvalidParams,
    MethodNotFound,
    OutcomeUnknown,
    ServerExists,
    UnknownName,
    UnknownServer,
    UpstreamFailure,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.model.auth import Principal, require_administrator
from gateway.model.catalogue import Catalogue, Target
from gateway.model.servers import Server, ServerSpec, is_name, parse_spec, patch_spec, read_fields
from gateway.pool import Tell, tell_nobody
from gateway.protocol import versions
from gateway.protocol.messages import Failure, Reply, Request, encode
from gateway.store import Change
from gateway.upstream.connect import NotResolved

_REGISTRATION_SECONDS = 2.0
_CLAIM_SECONDS = 5.0
_UNREACHABLE_META = "io.mcp-gateway/unreachable"

MASKED = "Internal error; the gateway's log has the cause."

log = logging.getLogger("gateway.methods")
calls = logging.getLogger("gateway.calls")

Found = TypeVar("Found")
Handler = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Call:
    """One request on its way: who asks, at which address, and what is offered at this moment.

    `server` is the name in `/mcp/servers/{name}/mcp`, None at the aggregate; `version` None outside MCP.
    """

    gateway: Gateway
    principal: Principal
    catalogue: Catalogue
    request: Request
    version: str | None = None
    server: str | None = None
    tell: Tell = tell_nobody
    wants_progress: bool = False
    request_id: str = ""
    started: float = field(default_factory=time.perf_counter)
    reached: str | None = None
    upstream_seconds: float | None = None

    async def find(self, look: Callable[[Catalogue], Found]) -> Found:
        """Look something up; what is unknown may have been registered a moment ago at another worker."""
        try:
            return look(self.catalogue)
        except UnknownName:
            if not await self.gateway.sync.catch_up_for_caller(self.catalogue):
                raise
            self.catalogue = self.gateway.sync.catalogue
            return look(self.catalogue)

    async def forward(self, server: Server, params: Mapping[str, Any]) -> Reply:
        """Ask the upstream. Raises UpstreamError, or UpstreamFailure with its own error."""
        meta = params.get("_meta")
        if not (meta is None or isinstance(meta, Mapping)):
            raise InvalidParams("'_meta' must be an object.", "_meta")
        self.reached = server.name
        asked = time.perf_counter()
        try:
            answer = await self.gateway.pool[server].request(
                replace(self.request, params=params), self.tell, wants_progress=self.wants_progress
            )
        finally:
            self.upstream_seconds = time.perf_counter() - asked
        if isinstance(answer, Failure):
            raise UpstreamFailure(server.name, answer.code, answer.message, answer.data)
        return answer

    def done(self, outcome: str, size: int) -> None:
        """Count this call and log its line; `size` is the answer's in bytes. No argument, no header, no key."""
        seconds = time.perf_counter() - self.started
        method = self.request.method if self.request.method in _KNOWN else "unknown"
        self.gateway.telemetry.called(method, outcome, seconds, self.upstream_seconds)
        if calls.isEnabledFor(logging.INFO):
            upstream = self.upstream_seconds
            named = self.request.params.get("name", self.request.params.get("uri"))
            fields = {
                "principal": self.principal.name,
                "method": method,
                "server": self.reached or self.server,
                "name": named[:128] if isinstance(named, str) else None,
                "outcome": outcome,
                "ms": round((seconds - (upstream or 0)) * 1e3, 2),
                "upstream_ms": None if upstream is None else round(upstream * 1e3, 2),
                "bytes": size,
                "request_id": self.request_id,
            }
            calls.info("call", extra={logs.FIELDS: fields})


# --- MCP at the aggregate -------------------------------------------------------------------------------------


async def initialize(
    call: Call, /, protocolVersion: Any, capabilities: Any = None, clientInfo: Any = None, **_: Any
) -> Mapping[str, Any]:
    """Open a session with the gateway itself (MCP, lifecycle)."""
    if not isinstance(protocolVersion, str):
        raise InvalidParams("'protocolVersion' must be a string.", "protocolVersion")
    return {
        "protocolVersion": versions.negotiate(protocolVersion),
        "capabilities": versions.AGGREGATE_CAPABILITIES,
        "serverInfo": {"name": version.NAME, "title": "MCP gateway", "version": version.VERSION},
        "instructions": _instructions(call),
    }


def _instructions(call: Call) -> str:
    servers = call.catalogue.visible(call.principal)
    listed = "; ".join(
        f"{server.name}: {(server.spec.description or server.spec.title or '').strip()[:120]}".rstrip(": ")
        for server in servers[:50]
    )
    more = f"; and {len(servers) - 50} more" if len(servers) > 50 else ""
    return f"Tools of several MCP servers, as <server>{call.gateway.settings.separator}<tool>. Servers: {listed}{more}."


async def ping(call: Call, /, **_: Any) -> Mapping[str, Any]:
    """Answer that we are here."""
    return {}


def _listing(kind: str, key: str) -> Handler:
    async def list_items(call: Call, /, cursor: Any = None, **_: Any) -> Mapping[str, Any]:
        items = call.catalogue.items(kind, call.principal)
        identity = {"resources": "uri", "templates": "uriTemplate"}.get(kind, "name")
        after = _read_cursor(cursor)
        size = call.gateway.settings.page_size
        rest = [item for _, item in items if after is None or item[identity] > after]
        result: dict[str, Any] = {key: rest[:size]}
        if len(rest) > size:
            result["nextCursor"] = base64.urlsafe_b64encode(rest[size - 1][identity].encode()).decode()
        if unreachable := _unreachable(call.catalogue.visible(call.principal)):
            result["_meta"] = {_UNREACHABLE_META: unreachable}
        return result

    return list_items


def _read_cursor(cursor: Any) -> str | None:
    if cursor is None or cursor == "":
        return None
    try:
        return base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (TypeError, ValueError, binascii.Error):
        raise InvalidParams("This cursor was not given out here; begin again without one.", "cursor") from None


def _unreachable(servers: list[Server]) -> list[dict[str, Any]]:
    """Whose items are the last known ones: since when, and why."""
    return [
        {
            "server": server.name,
            "reason": server.reason,
            "since": server.unreachable_since,
            "discovered_at": server.discovered_at,
        }
        for server in servers
        if server.state == "unreachable"
    ]


async def tools_call(call: Call, /, name: Any, arguments: Any = None, **_: Any) -> Reply:
    """Call the tool that a public or bare name leads to."""
    target = await find_tool(call, name, arguments)
    return await call_tool(call, target)


async def find_tool(call: Call, name: Any, arguments: Any) -> Target:
    """Resolve a tool. Raises InvalidParams, UnknownTool or AmbiguousName."""
    if not isinstance(name, str):
        raise InvalidParams("'name' must be a string, the tool's name.", "name")
    if not (arguments is None or isinstance(arguments, dict)):
        raise InvalidParams("'arguments' must be an object.", "arguments")
    return await call.find(lambda catalogue: catalogue.tool(name, call.principal))


async def call_tool(call: Call, target: Target) -> Reply:
    """Send a tool call to where it leads, if its arguments pass where the server wants them checked."""
    if (refused := _check_arguments(call, target)) is not None:
        return refused
    return await call.forward(target.server, _renamed_params(call, target))


def _renamed_params(call: Call, target: Target) -> Mapping[str, Any]:
    """The caller's params with the local name; `arguments` that are null are as good as none."""
    params = {**call.request.params, "name": target.local}
    if params.get("arguments", ...) is None:
        del params["arguments"]
    return params


def _check_arguments(call: Call, target: Target) -> Reply | None:
    """A tool error that names the fields, for servers registered with `validate_arguments`; else None."""
    if not target.server.spec.validate_arguments:
        return None
    arguments = call.request.params.get("arguments")
    given = arguments if isinstance(arguments, Mapping) else {}
    wrong = call.gateway.arguments.wrong(target.server, target.local, given)
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
    target = await call.find(lambda catalogue: catalogue.prompt(name, call.principal))
    return await call.forward(target.server, _renamed_params(call, target))


async def resources_read(call: Call, /, uri: Any, **_: Any) -> Reply:
    """Read the resource that a URI leads to; its contents come back under the URI that was asked for."""
    if not isinstance(uri, str):
        raise InvalidParams("'uri' must be a string.", "uri")
    target = await call.find(lambda catalogue: catalogue.resource(uri, call.principal))
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
            target = await call.find(lambda catalogue: catalogue.prompt(name, call.principal))
            local = {**ref, "name": target.local}
        case {"type": "ref/resource", "uri": str(uri)}:
            target = await call.find(lambda catalogue: catalogue.template(uri, call.principal))
            local = {**ref, "uri": target.local}
        case _:
            raise InvalidParams("'ref' must be a ref/prompt with a name or a ref/resource with a uri.", "ref")
    return await call.forward(target.server, {**call.request.params, "ref": local})


# --- MCP at one server's address: transparent -----------------------------------------------------------------


async def _addressed(call: Call) -> Server:
    name = call.server or ""
    return await call.find(lambda catalogue: catalogue.enabled_server(name, call.principal))


async def server_initialize(
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


async def server_forward(call: Call, /, **params: Any) -> Reply:
    """Pass a request on as it is."""
    return await call.forward(await _addressed(call), params)


async def server_call(call: Call, /, name: Any = None, **params: Any) -> Reply:
    """Pass a tool call on, if its arguments pass where the server wants them checked."""
    server = await _addressed(call)
    if isinstance(name, str) and (refused := _check_arguments(call, Target(server, name))) is not None:
        return refused
    return await call.forward(server, call.request.params)


def _server_listing(kind: str, key: str) -> Handler:
    async def list_items(call: Call, /, **params: Any) -> Reply | Mapping[str, Any]:
        server = await _addressed(call)
        try:
            return await call.forward(server, params)
        except (UpstreamUnreachable, UpstreamTimeout, UpstreamProtocolError, OutcomeUnknown):
            if not server.offers.version or params.get("cursor"):
                raise
            meta = {_UNREACHABLE_META: _unreachable([replace(server, state="unreachable")])}
            return {key: list(getattr(server.offers, kind)), "_meta": meta}

    return list_items


# --- the registry ---------------------------------------------------------------------------------------------


async def servers_register(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Store a new server and ask it at once what it offers; the very same one again changes nothing."""

    def register(stored: ServerSpec | None) -> ServerSpec:
        spec = parse_spec(fields, stored)
        if stored is not None and spec != stored:
            raise ServerExists(spec.name)
        return spec

    return await _put(call, fields, register)


async def servers_replace(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Create a server or give it another specification (REST's PUT)."""
    return await _put(call, fields, lambda stored: parse_spec(fields, stored))


async def servers_update(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Change some fields of a server (REST's PATCH)."""

    def update(stored: ServerSpec | None) -> ServerSpec:
        if stored is None:
            raise UnknownServer(_server_name(fields))
        return patch_spec(stored, fields)

    return await _put(call, fields, update)


async def _put(call: Call, fields: dict[str, Any], change: Change) -> Mapping[str, Any]:
    require_administrator(call.principal)
    fields.pop("_meta", None)
    if not read_fields(fields).get("name"):
        raise InvalidParams("The field 'name' is required.", "name")
    name = _server_name(fields)
    await _vet(call, fields)
    if await call.gateway.store.put(name, change, _CLAIM_SECONDS):
        await call.gateway.sync.announce()
        if (await _current(call, name)).spec.enabled:
            await call.gateway.refresh.discover(name, _REGISTRATION_SECONDS)
    return (await _current(call, name)).public()


async def servers_remove(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Forget a server."""
    require_administrator(call.principal)
    name = _only_name(fields)
    await call.gateway.store.remove(name)
    await call.gateway.sync.announce()
    return {"name": name, "server_id": name, "removed": True}


async def servers_refresh(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Ask a server now what it offers."""
    require_administrator(call.principal)
    name = _only_name(fields)
    server = await call.find(lambda catalogue: catalogue.enabled_server(name, call.principal))
    await call.gateway.refresh.discover(server.name, 4 * _REGISTRATION_SECONDS)
    return (await _current(call, name)).public()


async def servers_get(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Show one server."""
    name = _only_name(fields)
    server = await call.find(lambda catalogue: catalogue.server(name, call.principal))
    return server.public() | {"breaker": call.gateway.pool.breakers().get(name, "closed")}


async def servers_list(call: Call, /, **_: Any) -> Mapping[str, Any]:
    """Show all servers."""
    return listed("servers", call.catalogue, call.principal)


def listed(kind: str, catalogue: Catalogue, principal: Principal) -> dict[str, Any]:
    """The document of one list: `{kind: [...], "revision": n}`, items with their server."""
    if kind == "servers":
        items = [server.public() for server in catalogue.known(principal)]
    else:
        items = _with_server(kind, catalogue, principal)
    document: dict[str, Any] = {kind: items, "revision": catalogue.revision}
    if kind == "resources":
        document["resourceTemplates"] = _with_server("templates", catalogue, principal)
    return document


def _with_server(kind: str, catalogue: Catalogue, principal: Principal) -> list[Any]:
    return [{**item, "server": server.name} for server, item in catalogue.items(kind, principal)]


async def _vet(call: Call, fields: Mapping[str, Any]) -> None:
    """Refuse a URL whose host has an address that a server must not have; an unknown name may come to be known."""
    url = fields.get("url")
    host = urlsplit(url).hostname if isinstance(url, str) else None
    if host is not None:
        try:
            async with asyncio.timeout(_REGISTRATION_SECONDS):
                await call.gateway.vetting.addresses(host)
        except (NotResolved, TimeoutError):
            pass


async def _current(call: Call, name: str) -> Server:
    """The server as the registry has it now."""
    await call.gateway.sync.catch_up()
    call.catalogue = call.gateway.sync.catalogue
    return call.catalogue.server(name, call.principal)


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


# --- the table ------------------------------------------------------------------------------------------------

AGGREGATE: dict[str, Handler] = {
    "initialize": initialize,
    "ping": ping,
    "tools/list": _listing("tools", "tools"),
    "tools/call": tools_call,
    "resources/list": _listing("resources", "resources"),
    "resources/templates/list": _listing("templates", "resourceTemplates"),
    "resources/read": resources_read,
    "prompts/list": _listing("prompts", "prompts"),
    "prompts/get": prompts_get,
    "completion/complete": completion_complete,
}

ONE_SERVER: Mapping[str, Handler] = {
    "initialize": server_initialize,
    "ping": ping,
    "tools/list": _server_listing("tools", "tools"),
    "tools/call": server_call,
    "resources/list": _server_listing("resources", "resources"),
    "resources/templates/list": _server_listing("templates", "resourceTemplates"),
    "resources/read": server_forward,
    "prompts/list": _server_listing("prompts", "prompts"),
    "prompts/get": server_forward,
    "completion/complete": server_forward,
}

ADMINISTRATION: dict[str, Handler] = {
    "mcp.servers.register": servers_register,
    "mcp.servers.list": servers_list,
    "mcp.servers.get": servers_get,
    "mcp.servers.update": servers_update,
    "mcp.servers.remove": servers_remove,
    "mcp.servers.refresh": servers_refresh,
}


@dataclass(frozen=True, slots=True)
class _Ours:
    """The `data` of an error that a handler raised, told apart from the library's own errors."""

    value: Any


def _method(handler: Handler) -> Handler:
    """Wrap a handler for jsonrpcserver: our errors become its own, a surprise is logged and masked.

    The signature stands ready, since the library binds every call to it (27 us become 13).
    """

    async def method(call: Call, /, **params: Any) -> Result:
        try:
            return Success(await handler(call, **params))
        except GatewayError as error:
            code, text, data = wire_error(error)
            raise JsonRpcError(code, text, _Ours(data)) from None
        except Exception:
            log.exception("method %s failed", call.request.method)
            raise JsonRpcError(-32603, MASKED, _Ours(None)) from None

    method.__signature__ = inspect.signature(handler)  # type: ignore[attr-defined]  # inspect honours it
    return method


def _table(handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    return {name: _method(handler) for name, handler in handlers.items()}


_BOTH_SPELLINGS = ADMINISTRATION | {name.replace(".", "/"): each for name, each in ADMINISTRATION.items()}

METHODS: Mapping[str, dict[str, Handler]] = {
    "aggregate": _table(AGGREGATE),
    "server": _table(ONE_SERVER),
    "rpc": _table(AGGREGATE | _BOTH_SPELLINGS),
    "servers": _table(_BOTH_SPELLINGS),
    "tools/call": _table({"tools/call": tools_call}),
    "resources/read": _table({"resources/read": resources_read}),
    "prompts/get": _table({"prompts/get": prompts_get}),
}
"""Every method, by the kind of address that serves it."""


_KNOWN = frozenset(METHODS["rpc"]) | {"mcp.servers.replace"}


_CODES = frozenset({-32700, -32600, -32601, -32602, -32603, *range(-32099, -32000)})
"""The codes that figures are labelled with: an upstream may answer with any number."""


def wire_error(error: GatewayError) -> tuple[int, str, Any]:
    """The code, message and data of an error in JSON-RPC."""
    if isinstance(error, UpstreamFailure):
        return error.upstream_code, error.detail, error.data
    return error.code, error.detail, error.data


async def dispatch(table: dict[str, Handler], call: Call) -> Reply | Failure:
    """Carry out one request; whatever happens becomes its answer."""
    request = call.request
    if call.version is not None and not versions.allows(request.method, call.version):
        return Failure(request.id, *wire_error(MethodNotFound(request.method)))
    try:
        asked = LibraryRequest(request.method, dict(request.params), request.id)
        _, outcome = await dispatch_request(table, call, asked)
    except asyncio.CancelledError:
        call.done("cancelled", 0)
        raise
    return _answer(request, outcome)


async def answered(table: dict[str, Handler], call: Call) -> bytes:
    """Carry out one request, count and log it; return its answer as JSON."""
    answer = await dispatch(table, call)
    payload = encode(answer)
    call.done(outcome_of(answer), len(payload))
    return payload


def _answer(request: Request, outcome: Any) -> Reply | Failure:
    if not isinstance(outcome, Left):
        result = outcome._value.result
        return replace(result, id=request.id) if isinstance(result, Reply) else Reply(request.id, result)
    error = outcome._error
    if isinstance(error.data, _Ours):
        return Failure(request.id, error.code, error.message, error.data.value)
    if error.code == -32601:
        return Failure(request.id, *wire_error(MethodNotFound(request.method)))
    return Failure(request.id, error.code, f"{error.message}: {error.data}.")


def outcome_of(answer: Reply | Failure) -> str:
    """`ok`, `tool_error` or an error code, as figures and log lines name it."""
    if isinstance(answer, Failure):
        return str(answer.code) if answer.code in _CODES else "other_error"
    return "tool_error" if isinstance(answer.result, dict) and answer.result.get("isError") is True else "ok"
