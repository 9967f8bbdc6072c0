"""Client sessions at this worker: what is known of each, its own sessions upstream, its requests under way.

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

from gateway.bus import Bus
from gateway.errors import GatewayError, RequestCancelled, SessionNotFound, UpstreamProtocolError
from gateway.listening import Listening
from gateway.model.auth import Principal
from gateway.model.catalogue import Catalogue
from gateway.model.questions import Question, Questions, UnknownQuestion
from gateway.model.servers import Server
from gateway.model.sessions import Session
from gateway.pool import AskClient, Live, Pool, Tell
from gateway.protocol import versions
from gateway.protocol.exchange import Hello, OwnExchange, gateway_id
from gateway.protocol.messages import Failure, Id, Notification, Reply, Request
from gateway.records import Record, Records, RecordsUnavailable, UpstreamSession, subscription
from gateway.store import Store
from gateway.sync import Sync
from gateway.tasks import end
from gateway.upstream.base import Answering, Interrupted, Link, SessionExpired, Upstream

_KNOWN = 10_000  # conversations kept at one worker
_REAP_SECONDS = 2.0
_REAPED_AT_ONCE = 50
_HEARD_SECONDS = 0.25
_ANNOUNCE_SECONDS = 0.5
_HEARD_LOOK_SECONDS = 0.005

log = logging.getLogger("gateway.conversations")


class Conversation:
    """One client session, as this worker knows it."""

    def __init__(self, home: Conversations, session: Session, record: Record, server: str | None) -> None:
        self._home = home
        self._opening: dict[str, asyncio.Task[UpstreamSession]] = {}
        self._under_way: dict[Id, set[asyncio.Timeout]] = {}
        self._unsettled: dict[str, UpstreamSession] = {}
        self.session = session
        self.key = session.key
        self.record = record
        self.server = server
        self.upstream: dict[str, UpstreamSession] = dict(record.upstream)
        self.listening: Listening | None = None
        self.unwritten = False
        self.offline = False
        self.ended = False

    @property
    def alone(self) -> bool:
        """Whether something of it is known to this worker only, because Redis did not answer."""
        return self.offline or self.unwritten or bool(self._unsettled)

    async def settle(self, record: Record | None) -> None:
        """Redis answers again: go by the record; what was made meanwhile is kept where nothing else was.

        Raises RecordsUnavailable.
        """
        made, self._unsettled = self._unsettled, {}
        for server, upstream in made.items():
            held = None if self.offline else await self._home.records.settle(self.key, server, upstream, None)
            if held != upstream:
                self.upstream.pop(server, None)
                self._home.spawn(self._home.end_upstream(server, upstream))
        self.offline = self.unwritten = False
        if record is not None:
            self.record = record
            self.session = replace(self.session, version=record.version)
            self.upstream = dict(record.upstream)

    @property
    def busy(self) -> bool:
        return bool(self._under_way) or self.listening is not None

    # --- from the client upstream -------------------------------------------------------------------------------

    async def request(self, server: Server, request: Request, tell: Tell, *, reaches: bool = True) -> Reply | Failure:
        """Carry a client's request over its own session with a server.

        `reaches` tells whether the client can be asked something meanwhile. Raises RequestCancelled, UpstreamError.
        """
        live = self._home.pool[server]
        same = self._under_way.setdefault(request.id, set())
        under_way = asyncio.timeout(None)
        same.add(under_way)
        try:
            async with under_way:
                return await self._carry(server, live, OwnExchange(request), tell, reaches)
        except TimeoutError:
            raise SessionNotFound if self.ended else RequestCancelled from None
        finally:
            same.discard(under_way)
            if not same:
                self._under_way.pop(request.id, None)

    async def _carry(self, server: Server, live: Live, talk: OwnExchange, tell: Tell, reaches: bool) -> Reply | Failure:
        expired: UpstreamSession | None = None
        for _ in range(2):
            upstream = await self._session_with(server, live, expired)
            try:
                return await live.converse(
                    _link(upstream),
                    talk,
                    self._teller(server.name, upstream, tell),
                    self._asker(server.name, upstream, tell, reaches),
                )
            except SessionExpired as error:
                log.debug("session with %s expired: %s", server.name, error)
                expired = upstream
        raise UpstreamProtocolError(server.name, f"Server {server.name!r} does not know the session that it just made.")

    async def answer(self, message: Reply | Failure) -> None:
        """Pass a client's answer on to the upstream that asked; what nobody asked, or twice, is dropped."""
        try:
            question = self._home.questions.read(self.key, message.id)
        except UnknownQuestion:
            log.info("dropped an answer to a question that nobody asked")
            return
        try:
            if not await self._home.records.once(f"{self.key}:{message.id}"):
                log.info("dropped a second answer to a question of %s", question.server)
                return
        except RecordsUnavailable:
            pass  # better twice than never: the upstream drops the second
        await self._post(question, replace(message, id=question.id))

    async def notify(self, notification: Notification) -> None:
        """Pass on what a client tells."""
        params = notification.params
        match notification.method:
            case "notifications/cancelled":
                await self.cancel(params.get("requestId"), params)
            case "notifications/progress":
                try:
                    question = self._home.questions.read(self.key, params.get("progressToken"))
                except UnknownQuestion:
                    return
                await self._post(question, replace(notification, params={**params, "progressToken": question.id}))
            case "notifications/roots/list_changed":
                await self._post_everywhere(notification)

    async def cancel(self, id: object, params: Mapping[str, Any]) -> None:
        """Cancel a client's request, wherever it is under way."""
        if isinstance(id, bool) or not isinstance(id, str | int):
            return
        if not self.cancel_here(id):
            await self._home.tell("cancel", self.key, id=id)
            upstream_id = OwnExchange(Request(id, "")).outgoing().id
            await self._post_everywhere(Notification("notifications/cancelled", {**params, "requestId": upstream_id}))

    def cancel_here(self, id: Id) -> bool:
        """Cancel a request if it is this worker that carries it; the upstream is told."""
        under_way = self._under_way.get(id)
        for each in list(under_way or ()):
            _expire(each)
        return bool(under_way)

    def cancel_all(self) -> None:
        """The session is over: so is what it has under way."""
        self.ended = True
        for id in list(self._under_way):
            self.cancel_here(id)
        if self.listening is not None:
            self.listening.close()

    async def set_level(self, level: str) -> None:
        """Remember a log level, and pass it to every upstream session that logs."""
        self.record = replace(self.record, level=level)
        await self._change({"level": level})
        await asyncio.gather(
            *(
                self._replay(server, upstream, "logging/setLevel", {"level": level})
                for server, upstream in (await self._all_upstream()).items()
                if "logging" in upstream.handshake.capabilities
            )
        )

    async def subscribed(self, server: str, uri: str, *, to: bool) -> None:
        """Remember that the client subscribed to a server's resource, or does not any more."""
        pairs = self.record.subscriptions
        self.record = replace(self.record, subscriptions=pairs | {(server, uri)} if to else pairs - {(server, uri)})
        if to:
            await self._change({subscription(server, uri): "1"})
            return
        try:
            await self._home.records.forget(self.key, subscription(server, uri))
        except RecordsUnavailable:
            pass

    async def remember_level(self, level: str) -> None:
        """Remember a log level that was passed on already."""
        self.record = replace(self.record, level=level)
        await self._change({"level": level})

    async def introduce(self, version: str, params: Mapping[str, Any]) -> None:
        """Remember what the client says of itself, where its session came before its `initialize`."""
        capabilities, client_info = introduction(params)
        self.session = replace(self.session, version=version)
        self.record = replace(self.record, version=version, capabilities=capabilities, client_info=client_info)
        await self._change(
            {
                "version": version,
                "capabilities": orjson.dumps(capabilities).decode(),
                "client": orjson.dumps(client_info).decode(),
            }
        )

    # --- from upstream to the client ----------------------------------------------------------------------------

    def outward(self, server: str, upstream: UpstreamSession, message: Notification) -> Notification | None:
        """What the client is told of an upstream's notification, under the names of its address; None for nothing."""
        method, params = message.method, message.params
        if not versions.may_tell(method, self.session.version):
            return None
        if method == "notifications/cancelled":
            asked = params.get("requestId")
            if isinstance(asked, bool) or not isinstance(asked, str | int):
                return None
            return replace(message, params={**params, "requestId": self._question(server, upstream, asked)})
        if self.server is not None:
            return message
        if method in versions.LIST_CHANGES:
            return None  # the aggregate's lists are the catalogue's: they change when that does
        if method == "notifications/resources/updated" and isinstance(uri := params.get("uri"), str):
            return replace(message, params={**params, "uri": self._home.public_uri(server, uri)})
        if method == "notifications/message" and not _loud_enough(params.get("level"), self.record.level):
            return None
        return message

    def question(self, server: str, upstream: UpstreamSession, request: Request) -> Request | Failure:
        """An upstream's request under the id that the client gets it by, or why it can't be asked."""
        if not versions.may_ask(request.method, request.params, self.session.version, self.record.capabilities):
            return Failure(request.id, -32601, f"The client did not declare {request.method}.")
        params = request.params
        meta = params.get("_meta")
        if isinstance(meta, Mapping) and isinstance(token := meta.get("progressToken"), str | int):
            params = {**params, "_meta": {**meta, "progressToken": self._question(server, upstream, token)}}
        return Request(self._question(server, upstream, request.id), request.method, params)

    def _question(self, server: str, upstream: UpstreamSession, id: Id) -> str:
        return self._home.questions.write(self.key, Question(server, upstream.handle, id))

    def _teller(self, server: str, upstream: UpstreamSession, tell: Tell) -> Tell:
        async def outward(message: Answering | Interrupted | Notification | Request) -> None:
            passed = self.outward(server, upstream, message) if isinstance(message, Notification) else message
            if passed is not None:
                await tell(passed)

        return outward

    def _asker(self, server: str, upstream: UpstreamSession, tell: Tell, reaches: bool) -> AskClient:
        async def ask(request: Request) -> Failure | None:
            if not reaches:
                return Failure(request.id, -32601, "The client takes no event stream, so it can't be asked.")
            asked = self.question(server, upstream, request)
            if isinstance(asked, Failure):
                return asked
            await tell(asked)
            return None

        return ask

    # --- sessions upstream --------------------------------------------------------------------------------------

    async def _session_with(self, server: Server, live: Live, expired: UpstreamSession | None) -> UpstreamSession:
        """This client's session with a server: known, on record, or made now; whoever comes meanwhile waits for it."""
        name = server.name
        known = self.upstream.get(name)
        if known is not None and known.fingerprint == server.spec.fingerprint and known != expired:
            return known
        opening = self._opening.get(name)
        if opening is None or opening.done():
            opening = self._opening[name] = asyncio.create_task(self._open(server, live, expired))
            opening.add_done_callback(lambda task: None if task.cancelled() else task.exception() and None)
        return await asyncio.shield(opening)

    async def _open(self, server: Server, live: Live, expired: UpstreamSession | None) -> UpstreamSession:
        name, before = server.name, None
        record = await self._fresh_record()
        if record is not None:
            before = record.upstream.get(name)
            if before is not None and before.fingerprint == server.spec.fingerprint and before != expired:
                self._know(name, before)
                return before  # another worker made it
        else:
            record = self.record
        capabilities = versions.forwardable(record.capabilities)
        link = await live.open(Hello(self.session.version, capabilities, record.client_info))
        made = UpstreamSession(
            os.urandom(6).hex(), link.session_id, link.handshake, server.spec.fingerprint, link.holder
        )
        try:
            if self.offline or self.unwritten:
                raise RecordsUnavailable
            held = await self._home.records.settle(self.key, name, made, before)
        except RecordsUnavailable:
            held = self._unsettled[name] = made
        if held is None or self.ended:
            await live.end(link)
            raise SessionNotFound
        if held != made:
            await live.end(link)  # another worker was first
        else:
            await self._catch_up(name, made, record)
            await self._home.tell("upstream", self.key)
        self._know(name, held)
        return held

    def _know(self, server: str, upstream: UpstreamSession) -> None:
        self.upstream[server] = upstream
        if self.listening is not None:
            self.listening.look()

    async def _catch_up(self, server: str, upstream: UpstreamSession, record: Record) -> None:
        """Tell a new upstream session what the client said to earlier ones."""
        if record.level is not None and "logging" in upstream.handshake.capabilities:
            await self._replay(server, upstream, "logging/setLevel", {"level": record.level})
        for owner, uri in record.subscriptions:
            if owner == server:
                await self._replay(server, upstream, "resources/subscribe", {"uri": uri})

    async def _replay(self, server: str, upstream: UpstreamSession, method: str, params: Mapping[str, Any]) -> None:
        live = self._home.live(server)
        if live is None or live.spec.fingerprint != upstream.fingerprint:
            return
        talk = OwnExchange(Request(0, method, params), self._home.next_id())
        try:
            await live.converse(_link(upstream), talk, _tell_nobody, _ask_nobody)
        except (GatewayError, SessionExpired) as error:
            log.warning("server %s did not take %s: %s", server, method, error)

    async def _fresh_record(self) -> Record | None:
        """The record as it is now, None without Redis. Raises SessionNotFound."""
        if self.offline or self.unwritten:
            return None
        try:
            record = await self._home.records.read(self.key)
        except RecordsUnavailable:
            return None
        if record is None:
            self._home.drop(self.key)
            raise SessionNotFound
        self.record = record
        return record

    async def all_upstream(self) -> Mapping[str, UpstreamSession]:
        """Every session that this client has with a server, at whichever worker it was made."""
        return await self._all_upstream()

    async def _all_upstream(self) -> Mapping[str, UpstreamSession]:
        record = await self._fresh_record()
        if record is not None:
            self.upstream = {**record.upstream, **self._unsettled}
        return self.upstream

    async def _change(self, fields: Mapping[str, str]) -> None:
        try:
            if not (self.offline or self.unwritten) and not await self._home.records.change(self.key, fields):
                self._home.drop(self.key)
                raise SessionNotFound
        except RecordsUnavailable:
            return
        await self._home.tell("record", self.key)

    async def _post(self, question: Question, message: Reply | Failure | Notification) -> None:
        upstream = self.upstream.get(question.server)
        if upstream is None or upstream.handle != question.handle:
            upstream = (await self._all_upstream()).get(question.server)
        if upstream is None or upstream.handle != question.handle:
            log.info("dropped a late answer to a question of %s", question.server)
            return
        await self._send(question.server, upstream, message)

    async def _post_everywhere(self, message: Notification) -> None:
        upstream = await self._all_upstream()
        await asyncio.gather(*(self._send(server, session, message) for server, session in upstream.items()))

    async def _send(self, server: str, upstream: UpstreamSession, message: Reply | Failure | Notification) -> None:
        live = self._home.live(server)
        if live is None or live.spec.fingerprint != upstream.fingerprint:
            log.info("dropped a message for server %s, which is another one now", server)
            return
        try:
            await live.post(_link(upstream), message)
        except (GatewayError, SessionExpired, TimeoutError) as error:
            log.warning("server %s did not take a message: %s", server, error)

    async def let_go(self) -> None:
        """Forget the session here: what only this worker knows of is ended."""
        await end(self._opening.values())
        for server, upstream in self._unsettled.items():
            await self._home.end_upstream(server, upstream)


class Conversations:
    """The client sessions that this worker knows, and those that it can find."""

    def __init__(
        self,
        *,
        records: Records,
        bus: Bus,
        store: Store,
        sync: Sync,
        pool: Pool,
        questions: Questions,
        idle_seconds: float,
        max_sessions: int,
        dropped: Callable[[], None],
    ) -> None:
        self.records = records
        self.pool = pool
        self.questions = questions
        self._bus = bus
        self._store = store
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
        except RecordsUnavailable:
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
            finding.add_done_callback(lambda _: self._finding.pop(session.key, None))
        return await asyncio.shield(finding)

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
        except RecordsUnavailable:
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
        await self._store.end_session(session.key, session.expires)
        self._sync.end_session(session.key, session.expires)
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
        except RecordsUnavailable:
            record = None
        if record is not None:
            upstream.update(record.upstream)
        await asyncio.gather(*(self.end_upstream(server, each) for server, each in upstream.items()))

    async def _heard(self, token: str, receivers: int) -> None:
        """Wait for as many acknowledgements as there are workers, but not for long."""
        try:
            async with asyncio.timeout(_HEARD_SECONDS):
                while receivers and await self.records.acknowledged(token) < receivers:  # noqa: ASYNC110  # Redis counts
                    await asyncio.sleep(_HEARD_LOOK_SECONDS)
        except (TimeoutError, RecordsUnavailable):
            pass  # whoever did not hear it reads it from the registry's database

    async def end_upstream(self, server: str, upstream: UpstreamSession) -> None:
        """End one session with a server, if that is still registered as it was."""
        live = self.live(server)
        if live is not None and live.spec.fingerprint == upstream.fingerprint:
            await live.end(_link(upstream))

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
                self._sync.end_session(key, said["expires"])
                self.drop(key)
                self.spawn(self._acknowledge(said["ack"]))
            case "changed":
                self._hear_changed(said["server"], said["method"])
            case "cancel" if conversation is not None:
                conversation.cancel_here(said["id"])
            case "listen" if conversation is not None and conversation.listening is not None:
                conversation.listening.heard_of(said["token"])
            case "stop":
                self.stopped(key)
            case "upstream" if conversation is not None and conversation.listening is not None:
                conversation.listening.look()
            case "record" if conversation is not None:
                self.spawn(self._read_again(conversation))

    async def _acknowledge(self, token: str) -> None:
        try:
            await self.records.acknowledge(token)
        except RecordsUnavailable:
            pass

    async def _read_again(self, conversation: Conversation) -> None:
        try:
            record = await self.records.read(conversation.key)
        except RecordsUnavailable:
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
            except RecordsUnavailable:
                pass

    async def _put_off(self) -> None:
        used, self._used = self._used, {}
        used |= {key: each.session.expires for key, each in self._known.items() if each.busy}
        await self.records.keep_alive({key: self._deadline(expires) for key, expires in used.items()})

    async def _reap(self, key: str) -> None:
        try:
            record = await self.records.read(key)
            if record is None:
                await self.records.remove(key)
                return
            log.info("a session was idle too long")
            await self._store.end_session(key, record.expires)
            await self._over(key, record.expires)
        except (RecordsUnavailable, GatewayError) as error:
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


def _expire(under_way: asyncio.Timeout) -> None:
    """Cancel what runs in a timeout, unless that has begun to end or has not begun at all."""
    try:
        under_way.reschedule(0)
    except RuntimeError:
        pass


def introduction(params: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a client says of itself in `initialize`: its capabilities and its name, which servers insist on."""
    capabilities, client_info = params.get("capabilities"), params.get("clientInfo")
    unnamed = {"name": "unnamed", "version": "unknown"}
    return (
        capabilities if isinstance(capabilities, Mapping) else {},
        {**unnamed, **client_info} if isinstance(client_info, Mapping) else unnamed,
    )


def _link(upstream: UpstreamSession) -> Link:
    return Link(upstream.handshake, upstream.session_id, upstream.holder)


def _loud_enough(level: object, least: str | None) -> bool:
    if least is None or level not in versions.LOG_LEVELS:
        return True
    return versions.LOG_LEVELS.index(str(level)) >= versions.LOG_LEVELS.index(least)


async def _tell_nobody(_: object) -> None:
    """What a replay hears on the way is nobody's."""


async def _ask_nobody(request: Request) -> Failure:
    return Failure(request.id, -32601, "Nobody can be asked now.")
