"""The links of this worker, one per registered server, made on first use and closed when the registry says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.deadlines import Alarms
from gateway.model.catalogue import Catalogue
from gateway.model.server import STDIO, Server, ServerSpec
from gateway.upstream.factory import Connect
from gateway.upstream.link import FAREWELL_SECONDS, CallLimits, ServerLink, ShowBreaker

log = logging.getLogger("gateway.pool")


class Pool:
    """The links of this worker, by the server's name."""

    def __init__(
        self,
        connect: Connect,
        limits: CallLimits,
        changed: Callable[[str, str], None],
        show_breaker: ShowBreaker,
        failed: Callable[[str], None] = lambda server: None,
    ) -> None:
        """`changed` is told of a server whose lists changed, `failed` of one whose connection failed during a call."""
        self._connect = connect
        self._limits = limits
        self._changed = changed
        self._show_breaker = show_breaker
        self._failed = failed
        self.links: dict[str, ServerLink] = {}
        """The links there are; who finds one whose `spec` is not the server's asks the pool for it."""
        self.alarms = Alarms()
        self._retired: set[ServerLink] = set()
        self._unreachable: set[str] = set()
        self._program_gone: Callable[[ServerLink], None] = lambda link: None

    def __getitem__(self, server: Server | ServerSpec) -> ServerLink:
        spec = server.spec if isinstance(server, Server) else server
        link = self.links.get(spec.name)
        if link is not None and (link.spec is spec or link.spec == spec):
            link.spec = spec  # the same specification, read anew: the next look finds the very object
            return link
        if link is not None:
            self._retire(link, spec)
        link = self.links[spec.name] = ServerLink(
            spec, self._connect(spec), self._limits, self._changed, self._show_breaker, self._failed, self.alarms
        )
        return link

    def reconcile(self, catalogue: Catalogue) -> None:
        """Let go of what is no longer registered, or is registered otherwise."""
        for name, link in list(self.links.items()):
            server = catalogue.servers.get(name)
            if server is not None and server.state == "ready" and name in self._unreachable:
                link.revive()
            if server is None or not server.spec.enabled or server.spec != link.spec:
                self._retire(self.links.pop(name), None if server is None or not server.spec.enabled else server.spec)
        self._unreachable = {name for name, server in catalogue.servers.items() if server.state == "unreachable"}

    def breakers(self) -> dict[str, str]:
        """The state of each server's circuit breaker, at this worker."""
        return {name: link.breaker() for name, link in self.links.items()}

    async def close(self) -> None:
        """Say goodbye to every upstream, side by side, within a bound."""
        everyone = [*self.links.values(), *self._retired]
        self.links.clear()
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                for failure in await asyncio.gather(*(link.close() for link in everyone), return_exceptions=True):
                    if failure is not None:
                        log.error("an upstream could not be closed", exc_info=failure)
        except TimeoutError:
            log.warning("gave up on saying goodbye to some upstreams")

    def on_program_gone(self, call: Callable[[ServerLink], None]) -> None:
        """Have `call` told of the link to a program that is not registered any more, or as another one, before it ends.

        What sessions run of it would go on until they are idle.
        """
        self._program_gone = call

    def _retire(self, link: ServerLink, spec: ServerSpec | None) -> None:
        """Let go of a link, for one to `spec` where there is a server of that name."""
        is_same = spec is not None and spec.fingerprint == link.spec.fingerprint
        if link.spec.transport_type == STDIO and not is_same:
            self._program_gone(link)
        self._retired = {each for each in self._retired if each.in_use} | {link}
        link.retire()
