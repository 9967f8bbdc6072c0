"""THE method table: which JSON-RPC method is served at which address. The only importer of jsonrpcserver.

A handler takes a Call and the method's params, returns a result, raises our errors. REST faces call the same
handlers; here they are dispatched by jsonrpcserver and their errors become JSON-RPC's.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jsonrpcserver import Result, Success
from jsonrpcserver.async_dispatcher import dispatch_request
from jsonrpcserver.exceptions import JsonRpcError
from jsonrpcserver.request import Request as LibraryRequest
from oslash.either import Left

from gateway.errors import (
    ClientLeft,
    GatewayError,
    MethodNotFound,
)
from gateway.methods import all_servers as aggregate
from gateway.methods import one_server
from gateway.methods import servers as administration
from gateway.methods.call import Call, Handler, outcome_of, wire_error
from gateway.protocol import versions
from gateway.protocol.messages import Failure, Reply, Request, encode

MASKED = "Internal error; the gateway's log has the cause."

log = logging.getLogger("gateway.methods")


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
        except ClientLeft as left:
            raise JsonRpcError(0, "", left) from None  # the library would make an error of it: see `dispatch`
        except Exception:
            log.exception("method %s failed", call.request.method)
            raise JsonRpcError(-32603, MASKED, _Ours(None)) from None

    method.__signature__ = inspect.signature(handler)  # type: ignore[attr-defined]  # inspect honours it
    return method


def _table(handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    return {name: _method(handler) for name, handler in handlers.items()}


_BOTH_SPELLINGS = administration.METHODS | {
    name.replace(".", "/"): each for name, each in administration.METHODS.items()
}

METHODS: Mapping[str, dict[str, Handler]] = {
    "aggregate": _table(aggregate.METHODS),
    "server": _table(one_server.METHODS),
    "rpc": _table(aggregate.OUTSIDE_MCP | _BOTH_SPELLINGS),
    "servers": _table(_BOTH_SPELLINGS),
    "tools/call": _table({"tools/call": aggregate.tools_call}),
    "resources/read": _table({"resources/read": aggregate.resources_read}),
    "prompts/get": _table({"prompts/get": aggregate.prompts_get}),
}
"""Every method, by the kind of address that serves it."""


async def dispatch(table: dict[str, Handler], call: Call) -> Reply | Failure:
    """Carry out one request; whatever happens becomes its answer. Raises ClientLeft when nobody waits for it."""
    request = call.request
    if call.version is not None and not versions.allows(request.method, call.version):
        return Failure(request.id, *wire_error(MethodNotFound(request.method)))
    try:
        asked = LibraryRequest(request.method, dict(request.params), request.id)
        _, outcome = await dispatch_request(table, call, asked)
        if isinstance(outcome, Left) and isinstance(outcome._error.data, ClientLeft):
            raise outcome._error.data
    except (asyncio.CancelledError, ClientLeft):
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
