"""The client sessions at this worker: opened, found, ended, and what workers tell each other about them.

Any worker can serve any session: what must be shared is in the record (Redis), what is here is a copy or can be made
again. Without Redis the sessions that come go on alone: known to this worker only, with upstream sessions of its own.

How a session ends: DELETE, or its stream at `/sse`, or no use for GATEWAY_SESSION_IDLE_SECONDS (the workers claim
idle ones in Redis, so that one of them ends it), or its id expires. The end is recorded in Postgres first (`ended`),
then told to every worker, which cancels what the session has under way and says that it heard; after that, or after a
quarter of a second, the record goes (when Redis is back, if it is away) and its upstream sessions are ended. A worker
that did not hear it reads it from Postgres at its next look. Source: MCP 2025-11-25, basic, lifecycle and transports.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from gateway.errors import GatewayError, InvalidRequest, SessionNotFound
from gateway.model.catalogue import Catalogue
from gateway.model.endpoints import Endpoint
from gateway.model.grants import NOTHING
from gateway.model.principals import Principal
from gateway.model.question_ids import QuestionIds
from gateway.model.session_ids import SessionId, SessionIds
from gateway.model.view import View
from gateway.protocol.exchange import gateway_id
from gateway.registry.sync import Sync
from gateway.sessions.ended import EndedSessions
from gateway.sessions.get_stream import GetStream
from gateway.sessions.links import Links
from gateway.sessions.record import LocalRecord, Record, Records, UpstreamRecord
from gateway.sessions.session import Session, Surroundings
from gateway.stores.hints import Hints
from gateway.stores.redis import Redis, RedisUnavailable
from gateway.stores.words import (
    CancelRequest,
    ErrandStopped,
    GetStreamOpened,
    ListChanged,
    QuestionAnswered,
    RecordChanged,
    SessionsEnded,
    UpstreamOpened,
    Word,
)
from gateway.tasks import Together, end
from gateway.upstream.link import ServerLink
from gateway.upstream.pool import Pool

_KNOWN = 10_000  # sessions kept at one worker
_TOLD_AT_ONCE = 100  # streams that are told of a change before the loop goes on with its work
_REAP_SECONDS = 2.0
_REAPED_AT_ONCE = 50
_HEARD_SECONDS = 0.25
_ANNOUNCE_SECONDS = 0.5
_HEARD_LOOK_SECONDS = 0.005

log = logging.getLogger("gateway.sessions")


class Sessions:
    """The client sessions that this worker knows, and those that it can find."""

    def __init__(
        self,
        *,
        ids: SessionIds,
        records: Records,
        redis: Redis,
        hints: Hints,
        ended: EndedSessions,
        sync: Sync,
        pool: Pool,
        links: Links,
        question_ids: QuestionIds,
        idle_seconds: float,
        max_sessions: int,
        dropped: Callable[[], None],
        errand_stopped: Callable[[str], None],
    ) -> None:
        """`dropped` is told of each message that a client did not read, `errand_stopped` of an errand's stream."""
        self._ids = ids
        self._records = records
        self._redis = redis
        self._hints = hints
        self._ended = ended
        self._links = links
        self._idle_seconds = idle_seconds
        self._max_sessions = max_sessions
        self._dropped = dropped
        self._errand_stopped = errand_stopped
        self._around = Surroundings(pool, links, redis, hints, question_ids, self._next_id)
        self._catalogue = sync.catalogue
        self._is_draining = False
        self._known: OrderedDict[str, Session] = OrderedDict()
        self._by_id: dict[str, Session] = {}
        self._finding: dict[str, asyncio.Task[Session]] = {}
        self._used: dict[str, float] = {}
        self._number = 0
        self._worker = os.urandom(4).hex()
        self._tasks: set[asyncio.Task[None]] = set()
        self._announcing: dict[tuple[str, str], bool] = {}
        self._unremoved: set[str] = set()
        self._telling = Together(self._tell_ended)

    def _next_id(self) -> str:
        self._number += 1
        return gateway_id(self._worker, self._number)

    def __len__(self) -> int:
        return len(self._known)

    def keys(self) -> Collection[str]:
        """The keys of the sessions that this worker knows."""
        return self._known.keys()

    def here(self) -> list[Session]:
        """The sessions that this worker knows, the one used longest ago first."""
        return list(self._known.values())

    async def count(self) -> int:
        """How many sessions there are at all workers. Raises RedisUnavailable."""
        return await self._records.count()

    # --- opening, finding, ending -------------------------------------------------------------------------------

    async def open(
        self,
        principal: Principal,
        address: Endpoint,
        version: str,
        capabilities: Mapping[str, Any],
        client_info: Mapping[str, Any],
    ) -> Session:
        """Mint a session at an address, and keep what its client said of itself. Raises TooManyRequests."""
        id = self._ids.mint(principal, address.name, version, time.time())
        record = Record(principal.id, version, id.expires, capabilities, client_info)
        session = self._made(id, principal, address, record)
        try:
            await self._records.create(id.key, record, self._deadline(id.expires), self._max_sessions)
        except RedisUnavailable:
            session.local.was_not_written()
        self._keep(session)
        return session

    def read_id(self, text: str | None, principal: Principal, address: str) -> SessionId:
        """The id of a principal's session at an address. Raises InvalidRequest or SessionNotFound."""
        if text is None:
            raise InvalidRequest(
                "The header Mcp-Session-Id is missing: send 'initialize' first and repeat the id it answers with. "
                "POST /rpc takes single calls without a session."
            )
        id = self._ids.read(text, principal, address, time.time())
        if id.key in self._ended:
            raise SessionNotFound
        return id

    def known(self, text: str | None, principal: Principal, address: str) -> Session | None:
        """The session that an id names, if this worker knows it and has nothing to look up."""
        known = self._by_id.get(text or "")
        if known is None or not known.local.is_shared or known.upstream.unsettled:
            return None  # or something of it is known to this worker only, because Redis did not answer
        if known.owner != (principal.id, address):
            return None
        expires, key = known.id.expires, known.key
        if expires <= time.time():
            return None
        self._known.move_to_end(key)
        self._used[key] = expires
        return known

    async def find(self, text: str | None, principal: Principal, address: Endpoint) -> Session:
        """The session that an id names. Raises InvalidRequest or SessionNotFound."""
        if (known := self.known(text, principal, address.name)) is not None:
            return known
        id = self.read_id(text, principal, address.name)
        finding = self._finding.get(id.key)
        if finding is None:
            work = self._find(id, principal, address, self._known.get(id.key))
            finding = self._finding[id.key] = asyncio.create_task(work)
            finding.add_done_callback(lambda task: self._found(id.key, task))
        try:
            return await asyncio.shield(finding)
        except SessionNotFound:  # an error of each caller's own: it gets the id of the caller's request
            raise SessionNotFound from None

    def _found(self, key: str, task: asyncio.Task[Session]) -> None:
        self._finding.pop(key, None)
        if not task.cancelled():
            task.exception()  # who waited may all have left

    async def _find(self, id: SessionId, principal: Principal, address: Endpoint, known: Session | None) -> Session:
        try:
            if known is not None and not (known.local.is_shared or known.local.offline):
                deadline = self._deadline(id.expires)
                await self._records.create(id.key, known.local.record, deadline, self._max_sessions)
                await known.settle(None)
                return known
            record = await self._records.read(id.key)
            if known is not None and record is not None:
                await known.settle(record)
                return known
        except RedisUnavailable:
            if known is None and await self._ended.has(id.key):
                raise SessionNotFound from None
            if known is None:  # better served without what it declared than not at all
                known = self._made(id, principal, address, Record("", id.version, id.expires))
                known.local.went_offline()
                self._keep(known)
            return known
        if record is None:
            self.drop(id.key)
            raise SessionNotFound
        session = self._made(id, principal, address, record)
        self._keep(session)
        return session

    def _made(self, id: SessionId, principal: Principal, address: Endpoint, record: Record) -> Session:
        local = LocalRecord(self._records, id.key, record, self.drop)
        return Session(id, principal.id, address, local, self._around)

    def _keep(self, session: Session) -> None:
        self._known[session.key] = self._by_id[session.id.text] = session
        self._used[session.key] = session.id.expires
        if len(self._known) > _KNOWN:
            oldest = next((key for key, each in self._known.items() if not each.busy), None)
            if oldest is not None and (forgotten := self._forget(oldest)) is not None:
                self._spawn(forgotten.upstream.close())

    def _forget(self, key: str) -> Session | None:
        session = self._known.pop(key, None)
        if session is not None:
            self._by_id.pop(session.id.text, None)
        return session

    async def end(self, id: SessionId) -> None:
        """End a session at every worker and upstream. Raises StoreUnavailable."""
        await self._ended.end(id.key, id.expires)
        await self._end_everywhere(id.key)

    def drop(self, key: str) -> None:
        """A session is over: nothing of it goes on at this worker."""
        session = self._forget(key)
        if session is not None:
            session.cancel_all()
            self._spawn(session.upstream.close())

    async def _end_everywhere(self, key: str) -> None:
        """Tell every worker that a session is over, wait until they heard, and end it upstream."""
        session = self._known.get(key)
        upstream: dict[str, UpstreamRecord] = {} if session is None else dict(session.upstream.known)
        self.drop(key)
        await self._telling.do(key)
        try:
            await self._remove_record(key, upstream)
        except RedisUnavailable:
            await self._end_all_upstream(upstream)
            if len(self._unremoved) < _KNOWN:
                self._unremoved.add(key)  # by the clock, when Redis is back: another worker would serve it till then

    async def _remove_record(self, key: str, upstream: Mapping[str, UpstreamRecord]) -> None:
        """Drop the record of a session that is over, and end its sessions upstream. Raises RedisUnavailable."""
        record = await self._records.remove(key)
        await self._end_all_upstream({**upstream, **({} if record is None else record.upstream)})

    async def _end_all_upstream(self, upstream: Mapping[str, UpstreamRecord]) -> None:
        await asyncio.gather(*(self._end_upstream(server, each) for server, each in upstream.items()))

    async def _tell_ended(self, keys: Sequence[str]) -> None:
        """Tell every worker that sessions are over, and wait until they heard, but not for long."""
        token = os.urandom(8).hex()
        await self._wait_for_acknowledgements(token, await self._hints.broadcast(SessionsEnded(list(keys), token)))

    async def _wait_for_acknowledgements(self, token: str, receivers: int) -> None:
        """Wait for as many acknowledgements as there are workers, but not for long."""
        try:
            async with asyncio.timeout(_HEARD_SECONDS):
                while receivers and await self._redis.acknowledged(token) < receivers:  # noqa: ASYNC110  # Redis counts
                    await asyncio.sleep(_HEARD_LOOK_SECONDS)
        except (TimeoutError, RedisUnavailable):
            pass  # a worker that did not hear it reads it from Postgres

    async def _end_upstream(self, server: str, upstream: UpstreamRecord) -> None:
        link = self._links.of(server, upstream)
        if link is not None:
            await link.end(upstream.session)

    # --- the clients' own streams -------------------------------------------------------------------------------

    async def listen(self, session: Session, principal: Principal) -> GetStream:
        """Begin the session's own stream here; an older one, wherever it is, comes to its end."""
        stream = GetStream(
            session.address, session.translation, session.upstream, self._links, principal.grants, self._dropped
        )
        if session.get_stream is not None:
            session.get_stream.close()
        session.get_stream = stream
        if self._is_draining:
            stream.close()
        await self._hints.broadcast(GetStreamOpened(session.key, stream.token))
        stream.look()
        return stream

    async def listen_no_more(self, session: Session, stream: GetStream) -> None:
        """The end of a stream that `listen` began."""
        if session.get_stream is stream:
            session.get_stream = None
        await stream.end()

    def server_changed(self, server: str, method: str) -> None:
        """A server said that a list changed: every worker tells its clients, at most twice a second."""
        name = (server, method)
        if name in self._announcing:
            self._announcing[name] = True
        else:
            self._announcing[name] = False
            self._spawn(self._announce(server, method))

    async def _announce(self, server: str, method: str) -> None:
        again = True
        while again:
            self._announcing[server, method] = False
            if not await self._hints.broadcast(ListChanged(server, method)):
                self._list_changed(server, method)
            await asyncio.sleep(_ANNOUNCE_SECONDS)
            again = self._announcing[server, method]
        del self._announcing[server, method]

    def end_programs(self, link: ServerLink) -> None:
        """End what sessions run of a server that is gone, or another now; called before its link is let go of."""
        for session in self._known.values():
            upstream = session.upstream.known.get(link.spec.name)
            if upstream is not None and upstream.fingerprint == link.spec.fingerprint:
                link.hold()
                self._spawn(self._end_program(link, upstream))

    async def _end_program(self, link: ServerLink, upstream: UpstreamRecord) -> None:
        try:
            await link.end(upstream.session)
        finally:
            link.let_go()

    def reconcile(self, catalogue: Catalogue) -> None:
        """Servers changed: what clients listen to may, and their lists."""
        before, self._catalogue = self._catalogue, catalogue
        streams = [session.get_stream for session in self._known.values() if session.get_stream is not None]
        if streams:
            self._spawn(self._tell_changes(before, catalogue, streams))

    def principal_changed(self, id: str, principal: Principal | None) -> None:
        """A key's grants changed, or it is no longer taken: then its sessions end."""
        sessions = [session for session in self._known.values() if session.owner[0] == id]
        if principal is None:
            for session in sessions:
                self._spawn(self._end_of_key(session))
            return
        for session in sessions:
            stream = session.get_stream
            if stream is not None and stream.grants is not principal.grants:
                before = self._view(self._catalogue, stream)
                stream.grants = principal.grants
                view = self._view(self._catalogue, stream)
                stream.forget_others(view)
                for kind in view.changes_since(before, stream.server):
                    stream.catalogue_changed(f"notifications/{kind}/list_changed")
                stream.look()

    def _view(self, catalogue: Catalogue, stream: GetStream) -> View:
        """What a stream's client sees; nothing of a toolset that is gone or may not be seen any more."""
        try:
            return catalogue.view(stream.grants, stream.toolset)
        except GatewayError:
            return catalogue.view(NOTHING)

    async def _end_of_key(self, session: Session) -> None:
        try:
            await self.end(session.id)
        except GatewayError as error:  # nobody is let in to use it, and it idles out
            log.warning("a session of a key that is no longer taken could not be ended: %s", error)

    async def _tell_changes(self, before: Catalogue, after: Catalogue, streams: list[GetStream]) -> None:
        """Tell streams which lists changed: found out once for all that see the same, and told a few at a time.

        They stop listening to servers that are gone, or are others now.
        """
        found: dict[tuple[object, str | None], list[str]] = {}
        came = _came(before, after)
        for number, stream in enumerate(streams):
            view = self._view(after, stream)
            seen = view.digest, stream.server
            if seen not in found:
                found[seen] = view.changes_since(self._view(before, stream), stream.server)
                await asyncio.sleep(0)
            stream.forget_others(view)
            if came:
                stream.servers_came(came)
            for kind in found[seen]:
                stream.catalogue_changed(f"notifications/{kind}/list_changed")
            if number % _TOLD_AT_ONCE == _TOLD_AT_ONCE - 1:
                await asyncio.sleep(0)

    def close_streams(self) -> None:
        """Bring the clients' own streams here to their end, also those to come: the worker is on its way out."""
        self._is_draining = True
        for session in self._known.values():
            if session.get_stream is not None:
                session.get_stream.close()

    def _list_changed(self, server: str, method: str) -> None:
        for session in self._known.values():
            if session.get_stream is not None:
                session.get_stream.server_changed(server, method)

    # --- what workers tell each other ---------------------------------------------------------------------------

    def on_broadcast(self, word: Word) -> None:
        """Take note of what another worker (or this one) said."""
        match word:
            case SessionsEnded(keys, ack):
                for key in keys:
                    self._ended.add(key)
                    self.drop(key)
                self._spawn(self._acknowledge(ack))
            case ListChanged(server, method):
                self._list_changed(server, method)
            case ErrandStopped(stream):
                self._errand_stopped(stream)
            case _ if (session := self._known.get(word.key)) is not None:
                self._on_word(session, word)

    def _on_word(self, session: Session, word: Word) -> None:
        match word:
            case CancelRequest(_, id):
                session.cancel_here(id)
            case QuestionAnswered(_, id):
                session.question_answered(id)
            case GetStreamOpened(_, token) if session.get_stream is not None:
                session.get_stream.opened_elsewhere(token)
            case UpstreamOpened():
                session.upstream.look()
            case RecordChanged():
                self._spawn(self._read_again(session))

    async def _acknowledge(self, token: str) -> None:
        try:
            await self._redis.acknowledge(token)
        except RedisUnavailable:
            pass

    async def _read_again(self, session: Session) -> None:
        try:
            await session.local.refresh()
        except SessionNotFound:
            pass  # it was dropped

    # --- the clock ----------------------------------------------------------------------------------------------

    def _deadline(self, expires: float) -> float:
        return min(time.time() + self._idle_seconds, expires)

    async def run(self) -> None:
        """Extend the deadlines of sessions that are used, and end those that are not, until cancelled."""
        pause = min(30.0, self._idle_seconds / 4)
        due = 0.0
        while True:
            await asyncio.sleep(min(_REAP_SECONDS, pause))
            try:
                if time.monotonic() >= due:
                    due = time.monotonic() + pause
                    await self._extend_deadlines()
                for key in list(self._unremoved):
                    await self._remove_record(key, {})
                    self._unremoved.discard(key)
                for key in await self._records.overdue(time.time(), _REAPED_AT_ONCE):
                    self._spawn(self._reap(key))
            except RedisUnavailable:
                pass

    async def _extend_deadlines(self) -> None:
        used, self._used = self._used, {}
        used |= {key: each.id.expires for key, each in self._known.items() if each.busy}
        await self._records.extend_deadlines({key: self._deadline(expires) for key, expires in used.items()})

    async def _reap(self, key: str) -> None:
        try:
            record = await self._records.read(key)
            if record is None:
                await self._records.remove(key)
                return
            log.info("a session was idle too long")
            await self._ended.end(key, record.expires)
            await self._end_everywhere(key)
        except (RedisUnavailable, GatewayError) as error:
            log.warning("an idle session could not be ended: %s", error)

    async def close(self) -> None:
        """Let go of everything; the sessions live on in their records."""
        await end(self._tasks)
        for session in self.here():
            await session.upstream.close()
        self._known.clear()
        self._by_id.clear()

    def _spawn(self, work: Awaitable[None]) -> None:
        """Do something in the background; it is ended with the sessions."""

        async def run() -> None:
            try:
                await work
            except Exception:
                log.exception("background work for a session failed")

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _came(before: Catalogue, after: Catalogue) -> frozenset[str]:
    """The servers that take calls now and did not before, or were others."""

    def ready(catalogue: Catalogue) -> dict[str, str]:
        return {name: server.spec.fingerprint for name, server in catalogue.servers.items() if server.is_enabled}

    known = ready(before)
    return frozenset(name for name, fingerprint in ready(after).items() if known.get(name) != fingerprint)
