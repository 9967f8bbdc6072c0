"""One call on its way: who asks, at which address, what is offered at this moment, and how it went.

Handlers get a Call and the method's params. It looks names up, forwards upstream, and leaves one line in the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from gateway.errors import (
    GatewayError,
    InvalidParams,
    NeedsSession,
    UnknownName,
    UpstreamFailure,
)
from gateway.methods.services import Gateway
from gateway.model.catalogue import Catalogue
from gateway.model.principals import Principal
from gateway.model.server import Server
from gateway.observability import logs
from gateway.protocol import versions
from gateway.protocol.messages import Failure, Reply, Request
from gateway.sessions.session import Conversation
from gateway.upstream.link import Tell, tell_nobody

calls = logging.getLogger("gateway.calls")

Found = TypeVar("Found")
Handler = Callable[..., Awaitable[Any]]

_OWN = frozenset(
    f"mcp.servers.{verb}" for verb in ("register", "list", "get", "update", "replace", "remove", "refresh")
)
_CODES = frozenset({-32700, -32600, -32601, -32602, -32603, *range(-32099, -32000)})
"""The codes that figures are labelled with: an upstream may answer with any number."""


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
    conversation: Conversation | None = None
    reaches: bool = False
    """Whether a server can ask the client something during this call."""
    request_id: str = ""
    started: float = field(default_factory=time.perf_counter)
    reached: str | None = None
    tool: str | None = None
    """The server's own name of the tool that was called; None until it is found."""
    upstream_seconds: float | None = None

    async def find(self, look: Callable[[Catalogue], Found]) -> Found:
        """Look something up; what is unknown may have been registered a moment ago at another worker."""
        try:
            return look(self.catalogue)
        except UnknownName:
            await self.gateway.sync.catch_up_for_caller(self.catalogue)
            self.catalogue = self.gateway.sync.catalogue
        try:
            return look(self.catalogue)
        except UnknownName as error:
            error.suggest(self.catalogue.near(error.kind, error.name, self.principal))
            raise

    async def forward(self, server: Server, params: Mapping[str, Any]) -> Reply:
        """Ask the upstream. Raises UpstreamError, or UpstreamFailure with its own error."""
        meta = params.get("_meta")
        if not (meta is None or isinstance(meta, Mapping)):
            raise InvalidParams("'_meta' must be an object.", "_meta")
        self.reached = server.name
        asked = time.perf_counter()
        try:
            request = replace(self.request, params=params)
            if self.conversation is not None:
                answer = await self.conversation.request(server, request, self.tell, reaches=self.reaches)
            else:
                answer = await self.gateway.pool[server].request(request, self.tell, wants_progress=self.wants_progress)
        finally:
            self.upstream_seconds = time.perf_counter() - asked
        if isinstance(answer, Failure):
            raise UpstreamFailure(server.name, answer.code, answer.message, answer.data)
        return answer

    def in_session(self) -> Conversation:
        """The session that the call belongs to. Raises NeedsSession."""
        if self.conversation is None:
            raise NeedsSession(self.request.method)
        return self.conversation

    def done(self, outcome: str, size: int) -> None:
        """Count this call and log its line; `size` is the answer's in bytes. No argument, no header, no key."""
        seconds = time.perf_counter() - self.started
        method = _label(self.request.method)
        self.gateway.telemetry.called(method, outcome, seconds, self.upstream_seconds)
        if self.reached is not None:
            self.gateway.telemetry.forwarded(self.reached, self.tool, outcome)
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


def _label(method: str) -> str:
    """The method as figures name it: one spelling, and `unknown` for whatever else a caller sends."""
    dotted = method.replace("/", ".")
    return method if method in versions.CLIENT_METHODS else dotted if dotted in _OWN else "unknown"


def wire_error(error: GatewayError) -> tuple[int, str, Any]:
    """The code, message and data of an error in JSON-RPC."""
    if isinstance(error, UpstreamFailure):
        return error.upstream_code, error.detail, error.data
    return error.code, error.rpc_detail if isinstance(error, UnknownName) else error.detail, error.data


def outcome_of(answer: Reply | Failure) -> str:
    """`ok`, `tool_error` or an error code, as figures and log lines name it."""
    if isinstance(answer, Failure):
        return str(answer.code) if answer.code in _CODES else "other_error"
    return "tool_error" if isinstance(answer.result, dict) and answer.result.get("isError") is True else "ok"
