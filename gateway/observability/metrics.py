"""Figures of one worker, shown over all workers of its replica.

Under `serve` the supervisor sets PROMETHEUS_MULTIPROC_DIR, and the workers keep their figures in files there, so that
whichever worker is asked shows the sum. Elsewhere (embedded, tests) each instance has a registry of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True, slots=True)
class CallFigures:
    """What is counted of one method's calls with one outcome."""

    calls: Counter
    seconds: Histogram
    upstream_seconds: Histogram


Made = TypeVar("Made")


class _Children(dict[tuple[str, str], Made]):
    """Labelled figures by their labels, each looked up in the library once: that takes longer than counting."""

    def __init__(self, make: Callable[[tuple[str, str]], Made]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: tuple[str, str]) -> Made:
        made = self[key] = self._make(key)
        return made


class Metrics:
    """The figures; every one is labelled with the replica."""

    def __init__(self, replica: str, *, by_tool: bool = False) -> None:
        """With `by_tool` calls are counted by the tool's public name as well."""
        self._registry = CollectorRegistry()
        self._replica = replica
        self._calls = Counter(
            "gateway_calls",
            "Methods carried out; outcome is ok, tool_error, cancelled or an error code.",
            ("replica", "method", "outcome"),
            registry=self._registry,
        )
        self._server_calls = Counter(
            "gateway_server_calls",
            "Requests sent on to a server; outcome as in gateway_calls.",
            ("replica", "server", "outcome"),
            registry=self._registry,
        )
        self._tool_calls = Counter(
            "gateway_tool_calls",
            "Calls of a tool (with GATEWAY_METRICS_TOOLS=true).",
            ("replica", "server", "tool", "outcome"),
            registry=self._registry,
        )
        self.by_tool = by_tool
        self._seconds = self._histogram("gateway_call_seconds", "From request to answer.")
        self._upstream_seconds = self._histogram("gateway_upstream_seconds", "Of that, waiting for the server.")
        self.of_call = _Children(self._of_call)
        """The figures of a method's calls with one outcome, by both."""
        self.of_server = _Children(lambda key: self._server_calls.labels(replica, *key))
        """The count of requests sent on to a server with one outcome, by both."""
        self.sessions = Counter(
            "gateway_sessions_opened", "MCP sessions opened.", ("replica",), registry=self._registry
        ).labels(replica)
        self.dropped = Counter(
            "gateway_notifications_dropped",
            "Messages of servers that a client did not read fast enough.",
            ("replica",),
            registry=self._registry,
        ).labels(replica)
        self.in_flight = self._gauge("gateway_in_flight", "Requests being answered now.", "livesum")
        self.streams = self._gauge("gateway_streams", "Event streams open now.", "livesum")
        self.servers = self._gauge("gateway_servers", "Registered servers.", "livemax")
        self.revision = self._gauge("gateway_registry_revision", "Registry revision served, the oldest.", "livemin")
        self.read_at = self._gauge(
            "gateway_registry_read_timestamp_seconds", "When the registry was last read, the longest ago.", "livemin"
        )
        self.connections = self._gauge("gateway_database_connections", "Connections to Postgres.", "livesum")
        self.redis = self._gauge("gateway_redis_connected", "Workers that hear Redis.", "livesum")
        self.known_sessions = self._gauge("gateway_sessions_known", "MCP sessions that workers know.", "livesum")
        self.tasks = self._gauge("gateway_tasks", "asyncio tasks of the workers.", "livesum")
        self._breakers = Gauge(
            "gateway_breaker_open",
            "Workers that leave a server alone because it failed.",
            ("replica", "server"),
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def _of_call(self, key: tuple[str, str]) -> CallFigures:
        method, outcome = key
        return CallFigures(
            self._calls.labels(self._replica, method, outcome),
            self._seconds.labels(self._replica, method),
            self._upstream_seconds.labels(self._replica, method),
        )

    def _gauge(self, name: str, text: str, mode: str) -> Gauge:
        gauge = Gauge(name, text, ("replica",), registry=self._registry, multiprocess_mode=mode)  # type: ignore[arg-type]  # a literal there
        return gauge.labels(self._replica)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ("replica", "method"), buckets=_BUCKETS, registry=self._registry)

    def tool_called(self, server: str, tool: str, outcome: str) -> None:
        """Count one call of a tool."""
        self._tool_calls.labels(self._replica, server, tool, outcome).inc()

    def breaker(self, server: str, *, is_open: bool) -> None:
        """Show whether a server's circuit breaker lets nothing through."""
        self._breakers.labels(self._replica, server).set(int(is_open))

    def exposition(self) -> bytes:
        """Return the figures in Prometheus' text format."""
        if not os.environ.get(SHARED_FOLDER):
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]  # the library leaves it bare
        return generate_latest(everybody)
