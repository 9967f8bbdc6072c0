"""The sessions that one client has with servers: found, opened when first needed, and the same at every worker.

Each is on record in Redis under its server's name, so that any worker carries on with it. States of one, as a worker
sees it: *unknown* (not asked for yet, or made at another worker: the record is read first), *opening* (one task; all
that ask meanwhile wait for it), *known*, *expired* (the server forgot it: it is opened anew, and put on record in its
place), *unsettled* (opened while Redis did not answer: known to this worker only).

Two workers may open one for the same server at once. `Records.compare_and_set` decides: the first holds, the second
ends its own and goes on with the first's. Unsettled ones are offered to the record when Redis answers again, by the
same rule: Redis already has one for that server, so ours is ended.

A new upstream session is told what the client said to earlier ones: its log level, its subscriptions.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gateway.errors import GatewayError, SessionNotFound
from gateway.model.server import Server
from gateway.protocol import versions
from gateway.protocol.exchange import Hello
from gateway.protocol.messages import Failure, Notification, Reply, Request
from gateway.sessions.links import Links
from gateway.sessions.record import LocalRecord, Record, UpstreamRecord
from gateway.stores.hints import Hints
from gateway.stores.redis import RedisUnavailable
from gateway.stores.words import UpstreamOpened
from gateway.tasks import end
from gateway.upstream.contract import SessionExpired
from gateway.upstream.link import ServerLink

log = logging.getLogger("gateway.sessions")


class UpstreamSessions:
    """One client session's own sessions with servers, as this worker knows them."""

    def __init__(self, local: LocalRecord, links: Links, hints: Hints, next_id: Callable[[], str]) -> None:
        """`next_id` gives ids for the gateway's own requests on them."""
        self._local = local
        self._links = links
        self._hints = hints
        self._next_id = next_id
        self._opening: dict[str, asyncio.Task[UpstreamRecord]] = {}
        self._watchers: set[Callable[[], None]] = set()
        self.known: dict[str, UpstreamRecord] = dict(local.record.upstream)
        self.unsettled: dict[str, UpstreamRecord] = {}
        """Those of them that only this worker knows, since Redis did not answer."""
        self.closed = False
        """Whether the client session is over: what is opened from now on is ended at once."""

    def watch(self, call: Callable[[], None]) -> None:
        """Have `call` told when there may be another one; `unwatch` ends that."""
        self._watchers.add(call)

    def unwatch(self, call: Callable[[], None]) -> None:
        self._watchers.discard(call)

    def look(self) -> None:
        """There may be another one, opened here or at another worker."""
        for call in list(self._watchers):
            call()

    async def get(self, server: Server, link: ServerLink, expired: UpstreamRecord | None = None) -> UpstreamRecord:
        """The session with a server; `expired` is one that the server does not know any more.

        Raises SessionNotFound when the client session is over, or UpstreamError.
        """
        known = self.known.get(server.name)
        if known is not None and known.fingerprint == server.spec.fingerprint and known != expired:
            return known
        opening = self._opening.get(server.name)
        if opening is None or opening.done():
            opening = self._opening[server.name] = asyncio.create_task(self._open(server, link, expired))
            opening.add_done_callback(lambda task: None if task.cancelled() else task.exception() and None)
        return await asyncio.shield(opening)

    async def all(self) -> Mapping[str, UpstreamRecord]:
        """Every one of them, at whichever worker it was made. Raises SessionNotFound."""
        record = await self._local.refresh()
        if record is not None:
            self.known = {**record.upstream, **self.unsettled}
        return self.known

    async def find(self, server: str, handle: str) -> UpstreamRecord | None:
        """The one that a handle names, None if it is gone. Raises SessionNotFound."""
        found = self.known.get(server)
        if found is None or found.handle != handle:
            found = (await self.all()).get(server)
        return found if found is not None and found.handle == handle else None

    async def post(self, server: str, upstream: UpstreamRecord, message: Reply | Failure | Notification) -> None:
        """Send what needs no answer; what the server does not take has a line in the log."""
        link = self._links.of(server, upstream)
        if link is None:
            log.info("dropped a message for server %s, which is another one now", server)
            return
        try:
            await link.post(upstream.session, message)
        except (GatewayError, SessionExpired, TimeoutError) as error:
            log.warning("server %s did not take a message: %s", server, error)

    async def post_everywhere(self, message: Notification) -> None:
        """Send a notification on each. Raises SessionNotFound."""
        everything = await self.all()
        await asyncio.gather(*(self.post(server, upstream, message) for server, upstream in everything.items()))

    async def call_everywhere(self, method: str, params: Mapping[str, Any], capability: str) -> None:
        """Send the gateway's own request on each whose server declared a capability. Raises SessionNotFound."""
        everything = await self.all()
        await asyncio.gather(
            *(
                self._request(server, upstream, method, params)
                for server, upstream in everything.items()
                if capability in upstream.session.handshake.capabilities
            )
        )

    async def settle(self, *, keep: bool) -> None:
        """Merge what was opened while Redis was down; if Redis already has one for that server, end ours.

        Without `keep` all of it is ended: it was opened without what the client had declared. Raises RedisUnavailable.
        """
        for server, upstream in list(self.unsettled.items()):
            held = await self._local.compare_and_set(server, upstream, None) if keep else None
            del self.unsettled[server]
            if held != upstream:
                self.known.pop(server, None)
                await self.end_one(server, upstream)

    async def end_one(self, server: str, upstream: UpstreamRecord) -> None:
        """End one upstream, if its server is still registered as it was."""
        link = self._links.of(server, upstream)
        if link is not None:
            await link.end(upstream.session)

    async def close(self) -> None:
        """Forget them here; what only this worker knows of is ended."""
        await end(self._opening.values())
        for server, upstream in self.unsettled.items():
            await self.end_one(server, upstream)

    async def _open(self, server: Server, link: ServerLink, expired: UpstreamRecord | None) -> UpstreamRecord:
        name, before = server.name, None
        record = await self._local.refresh()
        if record is not None:
            before = record.upstream.get(name)
            if before is not None and before.fingerprint == server.spec.fingerprint and before != expired:
                return self._know(name, before)  # another worker made it
        else:
            record = self._local.record
        capabilities = versions.forwardable(record.capabilities)
        session = await link.open(Hello(record.version, capabilities, record.client_info))
        said = replace(session.handshake, instructions=None)  # long, and the registry has them
        made = UpstreamRecord(os.urandom(6).hex(), replace(session, handshake=said), server.spec.fingerprint)
        try:
            held = await self._local.compare_and_set(name, made, before)
        except RedisUnavailable:
            held = self.unsettled[name] = made
        if held is None or self.closed:
            await link.end(session)
            raise SessionNotFound
        if held != made:
            await link.end(session)  # another worker was first
        else:
            await self._repeat(name, made, record)
            await self._hints.broadcast(UpstreamOpened(self._local.key))
        return self._know(name, held)

    def _know(self, server: str, upstream: UpstreamRecord) -> UpstreamRecord:
        self.known[server] = upstream
        self.look()
        return upstream

    async def _repeat(self, server: str, upstream: UpstreamRecord, record: Record) -> None:
        """Tell a new one what the client said to earlier ones."""
        if record.level is not None and "logging" in upstream.session.handshake.capabilities:
            await self._request(server, upstream, "logging/setLevel", {"level": record.level})
        for owner, uri in record.subscriptions:
            if owner == server:
                await self._request(server, upstream, "resources/subscribe", {"uri": uri})

    async def _request(self, server: str, upstream: UpstreamRecord, method: str, params: Mapping[str, Any]) -> None:
        link = self._links.of(server, upstream)
        if link is None:
            return
        try:
            await link.call(upstream.session, Request(self._next_id(), method, params))
        except (GatewayError, SessionExpired) as error:
            log.warning("server %s did not take %s: %s", server, method, error)
