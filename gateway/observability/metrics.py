"""Figures of one worker, shown over all workers of its replica.

Under `serve` the supervisor sets PROMETHEUS_MULTIPROC_DIR, and the workers keep their figures in files there, so that
whichever worker is asked shows the sum. Elsewhere (embedded, tests) each instance has a registry of its own.
"""

from __future__ import annotations

import os
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.observability.ring import BOUNDS, Ring, buckets_of

_MAX_UNSETTLED = 2000  # calls
_WELL = frozenset({"ok", "tool_error", "cancelled"})
"""Outcomes that are no failure of the way."""
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


_Labels = tuple[str, ...]
_Kind = tuple[str, str, str | None, str | None]
"""Method, outcome, server, and the tool where calls are counted by it."""


class Metrics:
    """The figures; every one is labelled with the replica.

    A call leaves its times with those of its kind, and `settle` counts many at once: each of the library's figures is a
    lock, and a place in a file where there are several workers.
    """

    def __init__(self, replica: str, *, by_tool: bool = False, ring: Ring | None = None) -> None:
        """With `by_tool` calls are counted by the tool's public name as well; `ring` counts what servers were sent."""
        self._ring = ring or Ring()
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
        self._by_tool = by_tool
        self._seconds = self._histogram("gateway_call_seconds", "From request to answer.")
        self._upstream_seconds = self._histogram("gateway_upstream_seconds", "Of that, waiting for the server.")
        self._unsettled: dict[_Kind, tuple[list[float], list[float]]] = {}
        """How long calls took since the figures were last settled, and their servers."""
        self._count = 0
        self.count_in_flight: Callable[[], int] = lambda: 0
        """Says how many requests are being answered now."""
        self.sessions = Counter(
            "gateway_sessions_opened", "MCP sessions opened.", ("replica",), registry=self._registry
        ).labels(replica)
        self.dropped = Counter(
            "gateway_notifications_dropped",
            "Messages of servers that a client did not read fast enough.",
            ("replica",),
            registry=self._registry,
        ).labels(replica)
        self.audit_dropped = Counter(
            "gateway_audit_dropped",
            "Rows of calls that the audit lost, since the database did not take them.",
            ("replica",),
            registry=self._registry,
        ).labels(replica)
        self._in_flight = self._gauge("gateway_in_flight", "Requests being answered now.", "livesum")
        self.streams = self._gauge("gateway_streams", "Event streams open now.", "livesum")
        self.servers = self._gauge("gateway_servers", "Registered servers.", "livemax")
        self.changed_tools = self._gauge(
            "gateway_tools_changed",
            "Tools that changed under a lock, or claim more than is believed.",
            "livemax",
        )
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

    def called(
        self, method: str, outcome: str, seconds: float, server: str | None, tool: str | None, waited: float | None
    ) -> None:
        """Count one call and how long it took, in seconds; `server` is None if it was sent on to none."""
        kind = method, outcome, server, tool if self._by_tool else None
        times = self._unsettled.get(kind)
        if times is None:
            times = self._unsettled[kind] = ([], [])
        times[0].append(seconds)
        if waited is not None:
            times[1].append(waited)
        self._count += 1
        if self._count >= _MAX_UNSETTLED:
            self.settle()

    def settle(self) -> None:
        """Add what was counted since the last time to the figures."""
        unsettled, self._unsettled, self._count = self._unsettled, {}, 0
        called, of_servers, of_tools = Counts[_Labels](), Counts[_Labels](), Counts[_Labels]()
        took, waited = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
        for (method, outcome, server, tool), (seconds, upstream) in unsettled.items():
            count = len(seconds)
            called[method, outcome] += count
            took[method] += seconds
            if upstream:
                waited[method] += upstream
            if server is not None:
                of_servers[server, outcome] += count
                self._ring.add(server, buckets_of(seconds), are_errors=outcome not in _WELL)
                if tool is not None:
                    of_tools[server, tool, outcome] += count
        for counts, counter in (
            (called, self._calls),
            (of_servers, self._server_calls),
            (of_tools, self._tool_calls),
        ):
            for labels, count in counts.items():
                counter.labels(self._replica, *labels).inc(count)
        for times, histogram in ((took, self._seconds), (waited, self._upstream_seconds)):
            for method, seen in times.items():
                _add(histogram.labels(self._replica, method), seen)
        self._in_flight.set(self.count_in_flight())

    def _gauge(self, name: str, text: str, mode: str) -> Gauge:
        gauge = Gauge(name, text, ("replica",), registry=self._registry, multiprocess_mode=mode)  # type: ignore[arg-type]  # a literal there
        return gauge.labels(self._replica)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ("replica", "method"), buckets=BOUNDS, registry=self._registry)

    def breaker(self, server: str, *, is_open: bool) -> None:
        """Show whether a server's circuit breaker lets nothing through."""
        self._breakers.labels(self._replica, server).set(int(is_open))

    def exposition(self) -> bytes:
        """Return the figures in Prometheus' text format."""
        self.settle()
        if not os.environ.get(SHARED_FOLDER):
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]  # the library leaves it bare
        return generate_latest(everybody)


def _add(histogram: Any, seconds: Sequence[float]) -> None:
    """Add many durations at once, for which the library has no call of its own."""
    histogram._sum.inc(sum(seconds))
    for place, count in buckets_of(seconds).items():
        histogram._buckets[place].inc(count)
