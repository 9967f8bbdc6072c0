"""One line per call, and its figures: who called what, where it went, how long it took. No argument, header or key."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

from gateway.observability.logs import FIELDS
from gateway.observability.metrics import Metrics

calls = logging.getLogger("gateway.calls")


@dataclass(slots=True)
class Reached:
    """What one call has come to so far; written where it is forwarded, read when it is logged."""

    server: str | None = None
    tool: str | None = None
    """The server's own name of the tool that was called; None until it is found."""
    seconds: float | None = None
    """How long the server took."""


class CallLog:
    """Writes lines and figures; `methods` are the names that figures are labelled with."""

    def __init__(self, metrics: Metrics, methods: Collection[str]) -> None:
        self._metrics = metrics
        self._methods = frozenset(methods)

    def write(
        self,
        method: str,
        outcome: str,
        seconds: float,
        reached: Reached,
        *,
        principal: str,
        server: str | None,
        name: object,
        size: int,
        request_id: str,
    ) -> None:
        """Count one call and log its line; `size` is the answer's in bytes, `server` that of the address."""
        if method not in self._methods:
            dotted = method.replace("/", ".")
            method = dotted if dotted in self._methods else "unknown"  # a caller can send anything
        self._metrics.called(method, outcome, seconds, reached.seconds)
        if reached.server is not None:
            self._metrics.forwarded(reached.server, reached.tool, outcome)
        if calls.isEnabledFor(logging.INFO):
            upstream = reached.seconds
            fields = {
                "principal": principal,
                "method": method,
                "server": reached.server or server,
                "name": name[:128] if isinstance(name, str) else None,
                "outcome": outcome,
                "ms": round((seconds - (upstream or 0)) * 1e3, 2),
                "upstream_ms": None if upstream is None else round(upstream * 1e3, 2),
                "bytes": size,
                "request_id": request_id,
            }
            calls.info("call", extra={FIELDS: fields})
