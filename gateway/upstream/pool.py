"""The links of this worker, one per registered server, made on first use and closed when the registry says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.model.catalogue import Catalogue
from gateway.model.server import Server, ServerSpec
from gateway.upstream.factory import Connect
from gateway.upstream.link import FAREWELL_SECONDS, Bounds, Live, ShowBreaker

log = logging.getLogger("gateway.pool")


class Pool:
    """The live links of this worker, one per server, made on first use."""

    def __init__(
        self,
        connect: Connect,
        bounds: Bounds,
        changed: Callable[[str, str], None],
        show_breaker: ShowBreaker,
        failed: Callable[[str], None] = lambda server: None,
    ) -> None:
        """`changed` is told of a server whose lists changed, `failed` of one whose connection failed during a call."""
        self._connect = connect
        self._bounds = bounds
        self._changed = changed
        self._show_breaker = show_breaker
        self._failed = failed
        self._live: dict[str, Live] = {}
        self._retired: set[Live] = set()
        self._unreachable: set[str] = set()

    def __getitem__(self, server: Server | ServerSpec) -> Live:
        spec = server.spec if isinstance(server, Server) else server
        live = self._live.get(spec.name)
        if live is not None and (live.spec is spec or live.spec == spec):
            return live
        if live is not None:
            self._retire(live)
        live = self._live[spec.name] = Live(
            spec, self._connect(spec), self._bounds, self._changed, self._show_breaker, self._failed
        )
        return live

    def reconcile(self, catalogue: Catalogue) -> None:
        """Let go of what is no longer registered, or is registered otherwise."""
        for name, live in list(self._live.items()):
            server = catalogue.servers.get(name)
            if server is not None and server.state == "ready" and name in self._unreachable:
                live.revive()
            if server is None or not server.spec.enabled or server.spec != live.spec:
                self._retire(self._live.pop(name))
        self._unreachable = {name for name, server in catalogue.servers.items() if server.state == "unreachable"}

    def breakers(self) -> dict[str, str]:
        """The state of each live server's circuit breaker, at this worker."""
        return {name: live.breaker() for name, live in self._live.items()}

    async def close(self) -> None:
        """Say goodbye to every upstream, side by side, within a bound."""
        everyone = [*self._live.values(), *self._retired]
        self._live.clear()
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                for failure in await asyncio.gather(*(live.close() for live in everyone), return_exceptions=True):
                    if failure is not None:
                        log.error("an upstream could not be closed", exc_info=failure)
        except TimeoutError:
            log.warning("gave up on saying goodbye to some upstreams")

    def _retire(self, live: Live) -> None:
        self._retired = {each for each in self._retired if each.in_use} | {live}
        live.retire()
