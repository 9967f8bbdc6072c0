"""THE method table: which JSON-RPC method is served at which address, and `invoke`, which carries a call out.

Every face (MCP, JSON-RPC, REST, the old SSE transport) makes a `Call`, invokes it, and shows its `Outcome`. A handler
takes a Call and the method's params, returns a result, raises our errors. The only importer of jsonrpcserver.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Mapping

from jsonrpcserver import Result, Success
from jsonrpcserver.async_dispatcher import dispatch_request
from jsonrpcserver.exceptions import JsonRpcError
from jsonrpcserver.request import Request as LibraryRequest
from oslash.either import Left

from gateway.errors import ClientLeft, GatewayError, InvalidParams, MethodNotFound
from gateway.methods import all_servers, one_server, servers
from gateway.methods.call import Call, Handler, Outcome
from gateway.protocol import versions
from gateway.protocol.messages import Reply, encode

MASKED = "Internal error; the gateway's log has the cause."

Table = dict[str, Handler]
Present = Callable[[Outcome], bytes]

log = logging.getLogger("gateway.methods")


def _method(handler: Handler) -> Handler:
    """Wrap a handler for jsonrpcserver: our errors travel in its own, a surprise is logged and masked.

    The signature stands ready, since the library binds every call to it (27 us become 13).
    """

    async def method(call: Call, /, **params: object) -> Result:
        try:
            return Success(await handler(call, **params))
        except (GatewayError, ClientLeft) as error:
            raise JsonRpcError(0, "", error) from None
        except Exception:
            log.exception("method %s failed", call.request.method)
            raise JsonRpcError(0, "", GatewayError(MASKED)) from None

    method.__signature__ = inspect.signature(handler)  # type: ignore[attr-defined]  # inspect honours it
    return method


def _table(handlers: Mapping[str, Handler]) -> Table:
    return {name: _method(handler) for name, handler in handlers.items()}


_BOTH_SPELLINGS = servers.METHODS | {name.replace(".", "/"): each for name, each in servers.METHODS.items()}

METHODS: Mapping[str, Table] = {
    "aggregate": _table(all_servers.METHODS),
    "server": _table(one_server.METHODS),
    "rpc": _table(all_servers.OUTSIDE_MCP | _BOTH_SPELLINGS),
    "servers": _table(_BOTH_SPELLINGS),
    "tools/call": _table({"tools/call": all_servers.tools_call}),
    "resources/read": _table({"resources/read": all_servers.resources_read}),
    "prompts/get": _table({"prompts/get": all_servers.prompts_get}),
    "rest": _table(all_servers.METHODS | servers.METHODS | {"mcp.servers.replace": servers.replace_server}),
}
"""Every method, by the kind of address that serves it; `rest` is what the REST faces invoke."""

NAMES = frozenset(METHODS["rest"])
"""The methods by one spelling each, as figures and log lines name them."""


def as_json_rpc(outcome: Outcome) -> bytes:
    """The presenter of JSON-RPC: one message."""
    return encode(outcome.message)


async def invoke(table: Table, call: Call, present: Present = as_json_rpc) -> tuple[Outcome, bytes]:
    """Carry out one call; whatever happens is its outcome, which is presented, counted and logged.

    Raises ClientLeft when nobody waits for it any more; that, and being cancelled, is counted too.
    """
    began = time.perf_counter()
    try:
        outcome = await _outcome(table, call)
        body = present(outcome)
    except (asyncio.CancelledError, ClientLeft):
        _write(call, "cancelled", began, 0)
        raise
    _write(call, outcome.label, began, len(body))
    return outcome, body


async def _outcome(table: Table, call: Call) -> Outcome:
    request = call.request
    if call.version is not None and not versions.allows(request.method, call.version):
        return Outcome(request.id, None, MethodNotFound(request.method), call.reached)
    asked = LibraryRequest(request.method, dict(request.params), request.id)
    _, result = await dispatch_request(table, call, asked)
    if not isinstance(result, Left):
        value = result._value.result
        return Outcome(request.id, value if isinstance(value, Reply) else Reply(request.id, value), None, call.reached)
    error = result._error.data
    if isinstance(error, ClientLeft):
        raise error
    if not isinstance(error, GatewayError):  # the library's own: there is no such method, or its params do not fit
        unknown = result._error.code == MethodNotFound.code
        error = MethodNotFound(request.method) if unknown else InvalidParams(f"{result._error.message}: {error}.")
    return Outcome(request.id, None, error, call.reached)


def _write(call: Call, label: str, began: float, size: int) -> None:
    params = call.request.params
    call.gateway.call_log.write(
        call.request.method,
        label,
        time.perf_counter() - began,
        call.reached,
        principal=call.principal.name,
        server=call.server,
        name=params.get("name", params.get("uri")),
        size=size,
        request_id=call.request_id,
    )
