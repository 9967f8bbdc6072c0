"""Counts of one worker, on a registry of its own.

Knows figures only; `health.py` shows them.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Telemetry:
    """The figures of one worker; each is labelled with its replica and worker when shown."""

    def __init__(self, replica: str, worker: str) -> None:
        self._registry = CollectorRegistry()
        self._labels = {"replica": replica, "worker": worker}
        names = tuple(self._labels)
        self._calls = Counter(
            "gateway_calls",
            "JSON-RPC methods carried out, by outcome.",
            (*names, "method", "outcome"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "gateway_call_seconds",
            "Time from request to answer.",
            (*names, "method"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.in_flight = self._gauge("gateway_in_flight", "Requests being answered now.")
        self.streams = self._gauge("gateway_streams", "Event streams open now.")
        self.revision = self._gauge("gateway_registry_revision", "Registry revision this worker serves.")
        self.lag = self._gauge("gateway_registry_lag_seconds", "Seconds since the registry was last read.")
        self.servers = self._gauge("gateway_servers", "Registered servers.")

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, tuple(self._labels), registry=self._registry).labels(**self._labels)

    def called(self, method: str, outcome: str, seconds: float) -> None:
        """Count one carried-out method; `outcome` is ok, tool_error or an error code."""
        self._calls.labels(**self._labels, method=method, outcome=outcome).inc()
        self._seconds.labels(**self._labels, method=method).observe(seconds)

    def exposition(self) -> bytes:
        """Return the figures in Prometheus' text format."""
        return generate_latest(self._registry)
