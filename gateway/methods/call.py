"""A call: what is asked of the gateway, how it is carried out, and what came of it. The only importer of jsonrpcserver.

Every face (MCP, JSON-RPC, REST, the old SSE transport) makes a `Call` when the caller is known, has it carried out by
`invoke` with the methods of its address (`table`), and shows the `Outcome` in its protocol by a presenter. A handler
takes a Call and the method's params, returns a result, raises our errors.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jsonrpcserver import Result
from jsonrpcserver.async_dispatcher import call as carry_out
from jsonrpcserver.exceptions import JsonRpcError
from jsonrpcserver.request import Request as LibraryRequest
from jsonrpcserver.result import SuccessResult
from oslash.either import Left, Right

from gateway.access.limits import key_ended
from gateway.deadlines import Guard
from gateway.errors import (
    AmbiguousName,
    ClientLeft,
    Forbidden,
    GatewayError,
    HeldBack,
    InvalidParams,
    MethodNotFound,
    NeedsSession,
    OutcomeUnknown,
    RequestCancelled,
    RoleNeeded,
    ServerBusy,
    TooManyRequests,
    Unauthorized,
    UnknownName,
    UpstreamFailure,
    UpstreamSuspended,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.methods.services import Gateway
from gateway.model.limits import COUNTED
from gateway.model.principals import Principal, has_role
from gateway.model.server import Server
from gateway.model.view import View
from gateway.observability.call_log import Reached
from gateway.protocol.messages import Failure, Id, Reply, Request, encode
from gateway.protocol.versions import METHODS_OF
from gateway.sessions.session import Session
from gateway.upstream.contract import NO_EVENTS, Events

_new: Any = tuple.__new__
"""Makes the library's named tuples: by their names it takes twice as long."""

MASKED = "Internal error; the gateway's log has the cause."
_CODES = frozenset({-32700, -32600, -32601, -32602, -32603, *range(-32099, -32000)})
"""The codes that figures are labelled with: an upstream may answer with any number."""

_MAX_NAMED = 256  # characters of a name in the audit
_OUTCOMES: tuple[tuple[type[GatewayError] | tuple[type[GatewayError], ...], str], ...] = (
    ((TooManyRequests, ServerBusy), "limited"),
    ((Unauthorized, Forbidden, HeldBack), "refused"),
    ((UnknownName, AmbiguousName), "unknown"),
    (UpstreamTimeout, "timeout"),
    ((UpstreamUnreachable, UpstreamSuspended, OutcomeUnknown), "unreachable"),
    (RequestCancelled, "cancelled"),
)

Found = TypeVar("Found")
Handler = Callable[..., Awaitable[Any]]

log = logging.getLogger("gateway.methods")


@dataclass(slots=True)  # not frozen, as all that is made for each call: that takes four times as long
class Call:
    """One request, admitted: who asks, at which address, and what they see at this moment.

    `server` is the name in `/mcp/servers/{name}/mcp`, None at the aggregate; `version` and `session` are None outside
    MCP. `events` takes what comes before the answer. The face that makes a call may set this; from `invoke` on nobody
    changes it.
    """

    gateway: Gateway
    principal: Principal
    view: View
    request: Request
    version: str | None = None
    server: str | None = None
    session: Session | None = None
    events: Events = NO_EVENTS
    can_ask: bool = False
    """Whether a server can ask the client something during this call."""
    wants_progress: bool = False
    request_id: str = ""
    guard: Guard | None = None
    """What may end the task that carries the call out; None where nobody else has one."""
    address: str = ""
    """The path that it came in by."""
    reached: Reached = field(default_factory=Reached)
    mode: str | None = None
    """How the caller's URL wants tools to be listed (`model/tool_modes`), at MCP's addresses."""

    async def find(self, look: Callable[[View], Found]) -> Found:
        """Look something up; what is unknown may have been registered, or granted, a moment ago at another worker."""
        try:
            return look(self.view)
        except UnknownName:
            await self.gateway.sync.catch_up_for_caller(self.view.catalogue)
        principal = self.gateway.authenticator.current(self.principal) or self.principal
        toolset = self.view.toolset
        newest = self.gateway.sync.catalogue.view(principal.grants, None if toolset is None else toolset.slug)
        try:
            return look(newest)
        except UnknownName as error:
            error.suggest(newest.near(error.kind, error.name), "/mcp" if toolset is None else toolset.path)
            raise

    async def forward(self, server: Server, params: Mapping[str, Any]) -> Reply:
        """Ask the upstream. Raises UpstreamError, or UpstreamFailure with its own error."""
        if "_meta" in params and not isinstance(params["_meta"], dict | None):
            raise InvalidParams("'_meta' must be an object.", "_meta")
        asked, session, reached = self.request, self.session, self.reached
        request = Request(asked.id, asked.method, params)
        reached.server = server.name
        limited: str | None = None
        if (limits := server.spec.limits) is not None and asked.method in COUNTED:
            limited = f"server:{server.name}"
            if not self.gateway.rates.enter_at_once(limited, limits):
                await self.gateway.rates.enter(limited, limits)
        began = time.perf_counter()
        try:
            if session is not None:
                answer = await session.call(server, request, self.events, self.guard, can_ask=self.can_ask)
            else:
                answer = await self.gateway.pool[server].call_shared(
                    request,
                    self.events,
                    wants_progress=self.wants_progress,
                    guard=self.guard,
                    key=self.principal.key,
                )
        finally:
            reached.seconds = time.perf_counter() - began
            if limited is not None:
                self.gateway.rates.leave(limited)
        if isinstance(answer, Failure):
            raise UpstreamFailure(server.name, answer.code, answer.message, answer.data)
        return answer

    def in_session(self) -> Session:
        """The session that the call belongs to. Raises NeedsSession."""
        if self.session is None:
            raise NeedsSession(self.request.method)
        return self.session


@dataclass(slots=True)
class Outcome:
    """What came of a call: a reply (its id is the request's), or the error that ended it. `reached`: where it went."""

    id: Id
    reply: Reply | None
    error: GatewayError | None
    reached: Reached


Present = Callable[[Outcome], bytes]
"""Shows an outcome in a protocol."""


def as_json_rpc(outcome: Outcome) -> bytes:
    """The presenter of JSON-RPC: one message."""
    return encode(outcome.reply or failure(outcome.error or GatewayError(MASKED), outcome.id))


def failure(error: GatewayError, id: Id | None) -> Failure:
    """An error in JSON-RPC; a server's own error is passed on as it is."""
    code = error.upstream_code if isinstance(error, UpstreamFailure) else error.code
    return Failure(id, code, error.rpc_detail, error.data)


async def invoke(table: Table, call: Call, present: Present = as_json_rpc) -> tuple[Outcome, bytes]:
    """Carry out one call; whatever happens is its outcome, which is presented, counted and logged.

    Raises ClientLeft when the client has left; that, and being cancelled, is counted too.
    """
    began, request, label = time.perf_counter(), call.request, "ok"
    reply: Reply | None = None
    error: GatewayError | None = None
    name, params, method = request.method, request.params, table.get(request.method)
    try:
        if method is None or not (call.version is None or name in METHODS_OF[call.version]):
            error, label = MethodNotFound(name), str(MethodNotFound.code)
        elif method.needs is not None and not has_role(call.principal, method.needs[0]):
            error, label = RoleNeeded(*method.needs), str(RoleNeeded.code)
        elif (wrong := method.misfit(params)) is not None:
            error, label = InvalidParams(f"Invalid params: {wrong}."), str(InvalidParams.code)
        else:
            asked = _new(LibraryRequest, (name, [params], request.id))
            limits = call.principal.limits
            if limits is None or name not in COUNTED:
                result = await carry_out(asked, call, method.function)
            else:
                rates, subject = call.gateway.rates, f"key:{call.principal.id}"
                if not rates.enter_at_once(subject, limits):
                    await rates.enter(subject, limits)
                try:
                    result = await carry_out(asked, call, method.function)
                finally:
                    rates.leave(subject)
            if type(result) is Left:
                error, label = _failed(result)
            else:
                value = result._value.result
                if not isinstance(value, Reply):
                    reply = Reply(request.id, value)
                elif value.id != request.id:
                    reply = value.under(request.id)
                else:
                    reply = value
                if reply.is_tool_error:
                    label = "tool_error"
        outcome = Outcome(request.id, reply, error, call.reached)
        body = present(outcome)
    except GatewayError as refused:  # by a limit; or the result can't be presented
        outcome = Outcome(request.id, None, refused, call.reached)
        body, label = present(outcome), str(refused.code)
    except (asyncio.CancelledError, ClientLeft):
        if (ended := key_ended(call.guard)) is not None:
            outcome, label = Outcome(request.id, None, ended, call.reached), str(ended.code)
            body = present(outcome)
            _record(call, label, ended, began, len(body))
            return outcome, body
        _record(call, "cancelled", None, began, 0)
        raise
    _record(call, label, outcome.error, began, len(body))
    return outcome, body


def _record(call: Call, label: str, error: GatewayError | None, began: float, size: int) -> None:
    """Count and log a call that is over, and have the audit take it."""
    seconds, at = time.perf_counter() - began, time.time()
    gateway, request, reached = call.gateway, call.request, call.reached
    params, method = request.params, request.method
    named = reached.asked or params.get("name", params.get("uri"))
    if type(named) is not str:
        named = None
    gateway.call_log.write(call, at, named, label, seconds, size)
    if gateway.audit.has_calls and method in COUNTED:
        name = reached.tool
        if name is None and named is not None:
            name = named[:_MAX_NAMED]
        gateway.audit.call(
            at,
            call.principal,
            method,
            call.request_id,
            call.address,
            reached.server or reached.named or call.server,
            name,
            label if error is None else _outcome_of(error),
            seconds,
            reached.seconds,
            size,
            params.get("arguments") if reached.asked is None else reached.arguments,
        )


def _outcome_of(error: GatewayError) -> str:
    """An error in the audit's words."""
    for kinds, word in _OUTCOMES:
        if isinstance(error, kinds):
            return word
    return "error"


def _failed(result: Any) -> tuple[GatewayError, str]:
    """The error that ended a call, and its code as figures name it. Raises ClientLeft."""
    error = result._error.data
    if isinstance(error, ClientLeft):
        raise error
    if not isinstance(error, GatewayError):
        error = GatewayError(MASKED)
    code = error.upstream_code if isinstance(error, UpstreamFailure) else error.code
    return error, str(code) if code in _CODES else "other_error"


def needs(role: str, what: str) -> Callable[[Handler], Handler]:
    """Declare that a handler is for a role and those above it; `what` it does that others may not."""

    def declare(handler: Handler) -> Handler:
        handler.__dict__["needs"] = role, what
        return handler

    return declare


class Method:
    """A handler as the library carries it out, and which params fit it.

    The library's `dispatch_request` would look the method up and bind the params to its signature: 17 us, or 8 with a
    signature that stands ready and only compares names; its `call`, which carries out, takes 2.6.
    """

    def __init__(self, handler: Handler) -> None:
        self._signature = inspect.signature(handler)
        params = list(self._signature.parameters.values())[1:]  # after the call
        named = [each for each in params if each.kind is not each.VAR_KEYWORD]
        self._is_open = len(named) < len(params)
        self._known = frozenset(each.name for each in named)
        self._required = frozenset(each.name for each in named if each.default is each.empty)
        self.function = _function(handler)
        self.needs: tuple[str, str] | None = handler.__dict__.get("needs")
        """The role that it is for, and what it does; None for all."""

    def misfit(self, params: Mapping[str, Any]) -> str | None:
        """Say what is wrong with the names of params; None if they fit."""
        names = params.keys()
        if names >= self._required and (self._is_open or names <= self._known):
            return None
        try:
            self._signature.bind(None, **params)
        except TypeError as error:
            return str(error)
        return None


Table = Mapping[str, Method]


def table_of(handlers: Mapping[str, Handler]) -> Table:
    """Handlers by the method that they carry out, as `invoke` takes them."""
    return {name: Method(handler) for name, handler in handlers.items()}


def _function(handler: Handler) -> Handler:
    """Wrap a handler for jsonrpcserver: our errors travel in its own, a surprise is logged and masked."""

    async def function(call: Call, params: Mapping[str, Any]) -> Result:
        try:
            return Right(_new(SuccessResult, (await handler(call, **params),)))
        except (GatewayError, ClientLeft) as error:
            raise JsonRpcError(0, "", error) from None
        except Exception:
            log.exception("method %s failed", call.request.method)
            raise JsonRpcError(0, "", GatewayError(MASKED)) from None

    return function
