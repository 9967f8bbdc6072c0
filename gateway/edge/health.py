"""For operators: is the process alive, is the worker ready, and its figures."""

from __future__ import annotations

from typing import Any

from gateway import version
from gateway.edge.request import Http
from gateway.edge.response import send_bytes, send_json
from gateway.methods.services import Gateway
from gateway.settings import Settings


async def healthz(http: Http, settings: Settings) -> None:
    """200 while the process answers."""
    await send_json(http, {"status": "ok", "version": version.VERSION})


async def readyz(gateway: Gateway | None, http: Http, reason: str | None = None, *, leaving: bool = False) -> None:
    """200 while this worker may get requests (`degraded` says what is missing), else 503."""
    if gateway is None:
        await send_json(http, {"status": "starting", "reason": reason}, 503)
        return
    state = readiness(gateway)
    if leaving:
        state["status"] = "draining"
    await send_json(http, state, 503 if state["status"] == "draining" else 200)


def readiness(gateway: Gateway) -> dict[str, Any]:
    """Which worker this is, and how current."""
    degraded = [gateway.sync.degraded] if gateway.sync.degraded else []
    if not gateway.hints.connected:
        degraded.append("Redis does not answer; changes arrive by polling")
    if gateway.event_log.trouble:
        degraded.append(f"Redis refuses to record streams, which can't be resumed: {gateway.event_log.trouble}")
    if gateway.audit.trouble:
        degraded.append(gateway.audit.trouble)
    lag = gateway.sync.lag
    if lag is not None and lag > max(5.0, 3 * gateway.settings.poll_seconds) and not degraded:
        degraded.append(f"the registry was last read {lag:.0f} s ago")
    if lag is not None and lag > gateway.settings.keys_stale_seconds:
        degraded.append(
            f"keys that were revoked in the last {lag:.0f} s are not known here: the database does not answer"
        )
    return {
        "status": "draining" if gateway.draining.is_set() else "ready",
        "degraded": degraded,
        "replica": gateway.settings.replica_name,
        "worker": gateway.worker,
        "revision": gateway.sync.catalogue.revision,
        "lag_seconds": None if lag is None else round(lag, 3),
        "servers": len(gateway.sync.catalogue.servers),
        "max_body": gateway.settings.max_body,
        "version": version.VERSION,
    }


async def metrics(gateway: Gateway, http: Http) -> None:
    """The figures of all workers of this replica."""
    body = gateway.metrics.exposition()
    await send_bytes(http, 200, body, b"text/plain; version=0.0.4; charset=utf-8")
