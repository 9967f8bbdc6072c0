"""One line per call, and its figures: who called what, where it went, how long it took. No argument, header or key."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.observability.logs import FIELDS
from gateway.observability.metrics import Metrics

calls = logging.getLogger("gateway.calls")


@dataclass(slots=True)
class Reached:
    """What one call has come to so far; written where it is forwarded, read when it is logged."""

    named: str | None = None
    """The server that the tool's name leads to; None until it is found."""
    tool: str | None = None
    """That server's own name of the tool."""
    server: str | None = None
    """The server that the request was sent to."""
    seconds: float | None = None
    """How long the server took."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class _Asked(Protocol):
    @property
    def method(self) -> str: ...
    @property
    def params(self) -> Mapping[str, Any]: ...


class Logged(Protocol):
    """What the log needs of a call."""

    @property
    def principal(self) -> _Named: ...
    @property
    def request(self) -> _Asked: ...
    @property
    def server(self) -> str | None: ...
    @property
    def request_id(self) -> str: ...
    @property
    def reached(self) -> Reached: ...


class CallLog:
    """Writes lines and figures; `methods` are the names that figures are labelled with."""

    def __init__(self, metrics: Metrics, methods: Collection[str]) -> None:
        self._metrics = metrics
        self._methods = frozenset(methods)

    def write(self, call: Logged, outcome: str, seconds: float, size: int) -> None:
        """Count one call and log its line; `size` is the answer's in bytes."""
        method, reached = call.request.method, call.reached
        if method not in self._methods:
            dotted = method.replace("/", ".")
            method = dotted if dotted in self._methods else "unknown"  # a caller can send anything
        figures = self._metrics.of_call[method, outcome]
        figures.calls.inc()
        figures.seconds.observe(seconds)
        if reached.seconds is not None:
            figures.upstream_seconds.observe(reached.seconds)
        if reached.server is not None:
            self._metrics.of_server[reached.server, outcome].inc()
            if reached.tool is not None and self._metrics.by_tool:
                self._metrics.tool_called(reached.server, reached.tool, outcome)
        if calls.isEnabledFor(logging.INFO):
            params, upstream = call.request.params, reached.seconds
            named = params.get("name", params.get("uri"))
            fields = {
                "principal": call.principal.name,
                "method": method,
                "server": reached.server or call.server,
                "name": named[:128] if isinstance(named, str) else None,
                "outcome": outcome,
                "ms": round((seconds - (upstream or 0)) * 1e3, 2),
                "upstream_ms": None if upstream is None else round(upstream * 1e3, 2),
                "bytes": size,
                "request_id": call.request_id,
            }
            calls.info("call", extra={FIELDS: fields})
