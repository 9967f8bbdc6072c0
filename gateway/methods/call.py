"""The values of a call: what is asked of the gateway, and what came of it.

A `Call` is made at the edge, when the caller is known, and handed to a handler with the method's params. An `Outcome`
is what `invoke` (in `table`) makes of whatever the handler did; the edge shows it in the caller's protocol.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from gateway.errors import GatewayError, InvalidParams, NeedsSession, UnknownName, UpstreamFailure
from gateway.methods.services import Gateway
from gateway.model.catalogue import Catalogue
from gateway.model.principals import Principal
from gateway.model.server import Server
from gateway.observability.call_log import Reached
from gateway.protocol.messages import Failure, Id, Reply, Request
from gateway.sessions.session import Session
from gateway.upstream.contract import NO_EVENTS, Events

Found = TypeVar("Found")
Handler = Callable[..., Awaitable[Any]]

_CODES = frozenset({-32700, -32600, -32601, -32602, -32603, *range(-32099, -32000)})
"""The codes that figures are labelled with: an upstream may answer with any number."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, admitted: who asks, at which address, and what is offered at this moment.

    `server` is the name in `/mcp/servers/{name}/mcp`, None at the aggregate; `version` and `session` are None outside
    MCP. `events` takes what comes before the answer.
    """

    gateway: Gateway
    principal: Principal
    catalogue: Catalogue
    request: Request
    version: str | None = None
    server: str | None = None
    session: Session | None = None
    events: Events = NO_EVENTS
    can_ask: bool = False
    """Whether a server can ask the client something during this call."""
    wants_progress: bool = False
    request_id: str = ""
    reached: Reached = field(default_factory=Reached)

    async def find(self, look: Callable[[Catalogue], Found]) -> Found:
        """Look something up; what is unknown may have been registered a moment ago at another worker."""
        try:
            return look(self.catalogue)
        except UnknownName:
            await self.gateway.sync.catch_up_for_caller(self.catalogue)
        newest = self.gateway.sync.catalogue
        try:
            return look(newest)
        except UnknownName as error:
            error.suggest(newest.near(error.kind, error.name, self.principal))
            raise

    async def forward(self, server: Server, params: Mapping[str, Any]) -> Reply:
        """Ask the upstream. Raises UpstreamError, or UpstreamFailure with its own error."""
        meta = params.get("_meta")
        if not (meta is None or isinstance(meta, Mapping)):
            raise InvalidParams("'_meta' must be an object.", "_meta")
        request = Request(self.request.id, self.request.method, params)
        self.reached.server = server.name
        began = time.perf_counter()
        try:
            if self.session is not None:
                answer = await self.session.call(server, request, self.events, can_ask=self.can_ask)
            else:
                link = self.gateway.pool[server]
                answer = await link.call_shared(request, self.events, wants_progress=self.wants_progress)
        finally:
            self.reached.seconds = time.perf_counter() - began
        if isinstance(answer, Failure):
            raise UpstreamFailure(server.name, answer.code, answer.message, answer.data)
        return answer

    def in_session(self) -> Session:
        """The session that the call belongs to. Raises NeedsSession."""
        if self.session is None:
            raise NeedsSession(self.request.method)
        return self.session


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: a reply, or the error that ended it. `reached` says where it went."""

    id: Id
    reply: Reply | None
    error: GatewayError | None
    reached: Reached

    @property
    def message(self) -> Reply | Failure:
        """The outcome in JSON-RPC."""
        if self.reply is not None:
            return self.reply if self.reply.id == self.id else replace(self.reply, id=self.id)
        return failure(self.error or GatewayError("Nothing came of it."), self.id)

    @property
    def label(self) -> str:
        """`ok`, `tool_error` or an error code, as figures and log lines name it."""
        if self.reply is not None:
            result = self.reply.result
            return "tool_error" if isinstance(result, dict) and result.get("isError") is True else "ok"
        code = self.error.upstream_code if isinstance(self.error, UpstreamFailure) else self.error and self.error.code
        return str(code) if code in _CODES else "other_error"


def failure(error: GatewayError, id: Id | None) -> Failure:
    """An error in JSON-RPC."""
    if isinstance(error, UpstreamFailure):
        return Failure(id, error.upstream_code, error.detail, error.data)
    return Failure(id, error.code, error.rpc_detail, error.data)
