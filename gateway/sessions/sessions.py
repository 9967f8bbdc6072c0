"""The client sessions at this worker: opened, found, ended, and what workers tell each other about them.

Any worker can serve any session: what must be shared is in the record (Redis), what is here is a copy or can be made
again. Without Redis the sessions that come go on alone: known to this worker only, with upstream sessions of its own.
Source: MCP 2025-11-25, basic, lifecycle and transports.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from gateway.errors import GatewayError, SessionNotFound
from gateway.model.catalogue import Catalogue
from gateway.model.principals import Principal
from gateway.model.question_ids import Questions
from gateway.model.session_ids import Session
from gateway.protocol.exchange import gateway_id
from gateway.registry.sync import Sync
from gateway.sessions.ended import EndedSessions
from gateway.sessions.get_stream import Listening
from gateway.sessions.record import Record, Records, UpstreamSession
from gateway.sessions.session import Conversation, link_of
from gateway.stores.hints import Bus
from gateway.stores.redis import Redis, RedisUnavailable
from gateway.tasks import end
from gateway.upstream.contract import Upstream
from gateway.upstream.link import Live
from gateway.upstream.pool import Pool

_KNOWN = 10_000  # conversations kept at one worker
_REAP_SECONDS = 2.0
_REAPED_AT_ONCE = 50
_HEARD_SECONDS = 0.25
_ANNOUNCE_SECONDS = 0.5
_HEARD_LOOK_SECONDS = 0.005

log = logging.getLogger("gateway.conversations")


class Conversations:
    """The client sessions that this worker knows, and those that it can find."""

    def __init__(
        self,
        *,
        records: Records,
        redis: Redis,
        bus: Bus,
        ended: EndedSessions,
        sync: Sync,
        pool: Pool,
        questions: Questions,
        idle_seconds: float,
        max_sessions: int,
        dropped: Callable[[], None],
    ) -> None:
        self.records = records
        self.redis = redis
        self.pool = pool
        self.questions = questions
        self._bus = bus
        self._ended = ended
        self._sync = sync
        self._idle_seconds = idle_seconds
        self._max_sessions = max_sessions
        self._known: OrderedDict[str, Conversation] = OrderedDict()
        self._finding: dict[str, asyncio.Task[Conversation]] = {}
        self._used: dict[str, float] = {}
        self._number = 0
        self._worker = os.urandom(4).hex()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dropped = dropped
        self._announcing: dict[tuple[str, str], bool] = {}
        self.stopped: Callable[[str], None] = lambda errand: None
        """Told that an errand of another worker is wanted no more (`relay`)."""

    def next_id(self) -> str:
        """An id for a request of our own on a client's session, that no worker used."""
        self._number += 1
        return gateway_id(self._worker, self._number)

    def __len__(self) -> int:
        return len(self._known)

    # --- opening, finding, ending -------------------------------------------------------------------------------

    async def open(
        self,
        session: Session,
        principal: Principal,
        server: str | None,
        capabilities: Mapping[str, Any],
        client_info: Mapping[str, Any],
    ) -> Conversation:
        """Keep what a client said of itself in `initialize`. Raises TooManyRequests."""
        record = Record(principal.digest, session.version, session.expires, capabilities, client_info)
        conversation = Conversation(self, session, record, server)
        try:
            await self.records.create(session.key, record, self._deadline(session.expires), self._max_sessions)
        except RedisUnavailable:
            conversation.unwritten = True
        self._keep(conversation)
        return conversation

    async def find(self, session: Session, server: str | None) -> Conversation:
        """The conversation of a session. Raises SessionNotFound."""
        conversation = self._known.get(session.key)
        if conversation is not None and not conversation.alone:
            self._known.move_to_end(session.key)
            self._used[session.key] = session.expires
            return conversation
        finding = self._finding.get(session.key)
        if finding is None:
            finding = self._finding[session.key] = asyncio.create_task(self._find(session, server, conversation))
            finding.add_done_callback(lambda task: self._found(session.key, task))
        return await asyncio.shield(finding)

    def _found(self, key: str, task: asyncio.Task[Conversation]) -> None:
        self._finding.pop(key, None)
        if not task.cancelled():
            task.exception()  # who waited may all have left

    async def _find(self, session: Session, server: str | None, known: Conversation | None) -> Conversation:
        try:
            if known is not None and known.unwritten:
                deadline = self._deadline(session.expires)
                await self.records.create(session.key, known.record, deadline, self._max_sessions)
                await known.settle(None)
                return known
            record = await self.records.read(session.key)
            if known is not None and record is not None:
                await known.settle(record)
                return known
        except RedisUnavailable:
            if known is None:  # better served without what it declared than not at all
                known = Conversation(self, session, Record("", session.version, session.expires), server)
                known.offline = True
                self._keep(known)
            return known
        if record is None:
            self.drop(session.key)
            raise SessionNotFound
        conversation = Conversation(self, replace(session, version=record.version), record, server)
        self._keep(conversation)
        return conversation

    def _keep(self, conversation: Conversation) -> None:
        self._known[conversation.key] = conversation
        self._used[conversation.key] = conversation.session.expires
        if len(self._known) > _KNOWN:
            oldest = next((key for key, each in self._known.items() if not each.busy), None)
            if oldest is not None:
                self.spawn(self._known.pop(oldest).let_go())

    async def end(self, session: Session) -> None:
        """End a session at every worker and upstream. Raises StoreUnavailable."""
        await self._ended.end(session.key, session.expires)
        await self._over(session.key, session.expires)
        await self._sync.announce()

    def drop(self, key: str) -> None:
        """A session is over: nothing of it goes on at this worker."""
        conversation = self._known.pop(key, None)
        if conversation is not None:
            conversation.cancel_all()
            self.spawn(conversation.let_go())

    async def _over(self, key: str, expires: float) -> None:
        """Tell every worker that a session is over, wait until they heard, and end it upstream."""
        token = os.urandom(8).hex()
        conversation = self._known.get(key)
        upstream: dict[str, UpstreamSession] = {} if conversation is None else dict(conversation.upstream)
        self.drop(key)
        await self._heard(token, await self.tell("end", key, expires=expires, ack=token))
        try:
            record = await self.records.remove(key)
        except RedisUnavailable:
            record = None
        if record is not None:
            upstream.update(record.upstream)
        await asyncio.gather(*(self.end_upstream(server, each) for server, each in upstream.items()))

    async def _heard(self, token: str, receivers: int) -> None:
        """Wait for as many acknowledgements as there are workers, but not for long."""
        try:
            async with asyncio.timeout(_HEARD_SECONDS):
                while receivers and await self.redis.acknowledged(token) < receivers:  # noqa: ASYNC110  # Redis counts
                    await asyncio.sleep(_HEARD_LOOK_SECONDS)
        except (TimeoutError, RedisUnavailable):
            pass  # whoever did not hear it reads it from the registry's database

    async def end_upstream(self, server: str, upstream: UpstreamSession) -> None:
        """End one session with a server, if that is still registered as it was."""
        live = self.live(server)
        if live is not None and live.spec.fingerprint == upstream.fingerprint:
            await live.end(link_of(upstream))

    # --- listening ----------------------------------------------------------------------------------------------

    async def listen(self, conversation: Conversation, sees: Callable[[str], bool]) -> Listening:
        """Begin the session's own stream here; an older one, wherever it is, comes to its end."""
        listening = Listening(self, conversation, sees, self._dropped)
        if conversation.listening is not None:
            conversation.listening.close()
        conversation.listening = listening
        await self.tell("listen", conversation.key, token=listening.token)
        listening.look()
        return listening

    def server_changed(self, server: str, method: str) -> None:
        """A server said that a list changed: every worker tells its clients, at most twice a second."""
        name = (server, method)
        if name in self._announcing:
            self._announcing[name] = True
        else:
            self._announcing[name] = False
            self.spawn(self._announce(server, method))

    async def _announce(self, server: str, method: str) -> None:
        again = True
        while again:
            self._announcing[server, method] = False
            if not await self.tell("changed", "", server=server, method=method):
                self._hear_changed(server, method)
            await asyncio.sleep(_ANNOUNCE_SECONDS)
            again = self._announcing[server, method]
        del self._announcing[server, method]

    def reconcile(self, catalogue: Catalogue) -> None:
        """Servers changed: nobody listens to those that are gone or others now."""
        for conversation in self._known.values():
            if conversation.listening is not None:
                conversation.listening.forget_others(catalogue)

    def _hear_changed(self, server: str, method: str) -> None:
        for conversation in self._known.values():
            if conversation.listening is not None:
                conversation.listening.server_changed(server, method)

    # --- what workers tell each other ---------------------------------------------------------------------------

    async def tell(self, what: str, key: str, **more: Any) -> int:
        """Tell every worker something about a session; return how many hear it."""
        return await self._bus.tell(orjson.dumps({"what": what, "key": key, **more}))

    def told(self, word: bytes) -> None:
        """Take note of what another worker (or this one) said."""
        try:
            said = orjson.loads(word)
            self._take_in(said["what"], said["key"], said)
        except Exception:  # of another version, say: the listener goes on
            log.exception("what another worker said can't be taken in")

    def _take_in(self, what: str, key: str, said: Mapping[str, Any]) -> None:
        conversation = self._known.get(key)
        match what:
            case "end":
                self._ended.add(key, said["expires"])
                self.drop(key)
                self.spawn(self._acknowledge(said["ack"]))
            case "changed":
                self._hear_changed(said["server"], said["method"])
            case "cancel" if conversation is not None:
                conversation.cancel_here(said["id"])
            case "listen" if conversation is not None and conversation.listening is not None:
                conversation.listening.heard_of(said["token"])
            case "answered" if conversation is not None:
                conversation.answered(said["id"])
            case "stop":
                self.stopped(key)
            case "upstream" if conversation is not None and conversation.listening is not None:
                conversation.listening.look()
            case "record" if conversation is not None:
                self.spawn(self._read_again(conversation))

    async def _acknowledge(self, token: str) -> None:
        try:
            await self.redis.acknowledge(token)
        except RedisUnavailable:
            pass

    async def _read_again(self, conversation: Conversation) -> None:
        try:
            record = await self.records.read(conversation.key)
        except RedisUnavailable:
            return
        if record is not None:
            conversation.record = record
            conversation.session = replace(conversation.session, version=record.version)

    # --- the clock ----------------------------------------------------------------------------------------------

    def _deadline(self, expires: float) -> float:
        return min(time.time() + self._idle_seconds, expires)

    async def run(self) -> None:
        """Put off the end of sessions that are used, and end those that are not, until cancelled."""
        pause = min(30.0, self._idle_seconds / 4)
        due = 0.0
        while True:
            await asyncio.sleep(min(_REAP_SECONDS, pause))
            try:
                if time.monotonic() >= due:
                    due = time.monotonic() + pause
                    await self._put_off()
                for key in await self.records.overdue(time.time(), _REAPED_AT_ONCE):
                    self.spawn(self._reap(key))
            except RedisUnavailable:
                pass

    async def _put_off(self) -> None:
        used, self._used = self._used, {}
        used |= {key: each.session.expires for key, each in self._known.items() if each.busy}
        await self.records.extend_deadlines({key: self._deadline(expires) for key, expires in used.items()})

    async def _reap(self, key: str) -> None:
        try:
            record = await self.records.read(key)
            if record is None:
                await self.records.remove(key)
                return
            log.info("a session was idle too long")
            await self._ended.end(key, record.expires)
            await self._over(key, record.expires)
        except (RedisUnavailable, GatewayError) as error:
            log.warning("an idle session could not be ended: %s", error)

    async def close(self) -> None:
        """Let go of everything; the sessions live on in their records."""
        await end(self._tasks)
        for conversation in list(self._known.values()):
            await conversation.let_go()
        self._known.clear()

    # --- what conversations ask for -----------------------------------------------------------------------------

    def live(self, server: str) -> Live | None:
        """The link to a server that is registered and enabled."""
        found = self._sync.catalogue.servers.get(server)
        return self.pool[found] if found is not None and found.spec.enabled and not found.spec.sealed_away else None

    def way_to(self, server: str) -> Upstream | None:
        """The upstream of a server that another worker's errand names."""
        live = self.live(server)
        return None if live is None else live.upstream

    def public_uri(self, server: str, uri: str) -> str:
        """The URI by which the aggregate knows a server's resource."""
        return self._sync.catalogue.public_uri(server, uri)

    def spawn(self, work: Awaitable[None]) -> None:
        """Do something in the background; it is ended with the conversations."""

        async def run() -> None:
            try:
                await work
            except Exception:
                log.exception("background work for a session failed")

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
