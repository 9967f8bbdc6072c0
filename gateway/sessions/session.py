"""One client session as a worker knows it: its own sessions upstream, its requests under way, both directions.

Source: MCP 2025-11-25, basic, lifecycle and transports.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from gateway.errors import GatewayError, RequestCancelled, SessionNotFound, UpstreamProtocolError
from gateway.model.question_ids import Question, UnknownQuestion
from gateway.model.server import Server
from gateway.model.session_ids import Session
from gateway.protocol import versions
from gateway.protocol.exchange import Hello, OwnExchange
from gateway.protocol.messages import Failure, Id, Notification, Reply, Request
from gateway.sessions.get_stream import Listening
from gateway.sessions.record import Record, UpstreamSession, subscription
from gateway.stores.redis import RedisUnavailable
from gateway.tasks import end
from gateway.upstream.contract import Answering, Interrupted, Link, SessionExpired
from gateway.upstream.link import AskClient, Live, Tell

if TYPE_CHECKING:
    from gateway.sessions.sessions import Conversations

log = logging.getLogger("gateway.conversation")


class Conversation:
    """One client session, as this worker knows it."""

    def __init__(self, home: Conversations, session: Session, record: Record, server: str | None) -> None:
        self._home = home
        self._opening: dict[str, asyncio.Task[UpstreamSession]] = {}
        self._under_way: dict[Id, set[asyncio.Timeout]] = {}
        self._unsettled: dict[str, UpstreamSession] = {}
        self._asked: dict[str, Callable[[], None]] = {}
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

        Raises RedisUnavailable.
        """
        made, self._unsettled = self._unsettled, {}
        for server, upstream in made.items():
            held = None if self.offline else await self._home.records.compare_and_set(self.key, server, upstream, None)
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
        ids: list[str] = []
        for _ in range(2):
            upstream = await self._session_with(server, live, expired)
            try:
                return await live.converse(
                    link_of(upstream),
                    talk,
                    self._teller(server.name, upstream, tell),
                    self._asker(server.name, upstream, tell, reaches, ids),
                )
            except SessionExpired as error:
                log.debug("session with %s expired: %s", server.name, error)
                expired = upstream
            finally:
                for id in ids:
                    self._asked.pop(id, None)
        raise UpstreamProtocolError(server.name, f"Server {server.name!r} does not know the session that it just made.")

    async def answer(self, message: Reply | Failure) -> None:
        """Pass a client's answer on to the upstream that asked; what nobody asked, or twice, is dropped."""
        try:
            question = self._home.questions.read(self.key, message.id)
        except UnknownQuestion:
            log.info("dropped an answer to a question that nobody asked")
            return
        try:
            if not await self._home.redis.once(f"{self.key}:{message.id}"):
                log.info("dropped a second answer to a question of %s", question.server)
                return
        except RedisUnavailable:
            pass  # better twice than never: the upstream drops the second
        if isinstance(message.id, str) and not self.answered(message.id):
            await self._home.tell("answered", self.key, id=message.id)
        await self._post(question, replace(message, id=question.id))

    def answered(self, id: str) -> bool:
        """Give the call that waits for a client's answer its usual time again; False if it is not under way here."""
        call = self._asked.pop(id, None)
        if call is not None:
            call()
        return call is not None

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
                for server, upstream in (await self.all_upstream()).items()
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
        except RedisUnavailable:
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

    def _asker(self, server: str, upstream: UpstreamSession, tell: Tell, reaches: bool, ids: list[str]) -> AskClient:
        """Passes a server's questions on during one call; their ids go to `ids`."""

        async def ask(request: Request, answered: Callable[[], None]) -> Failure | None:
            if not reaches:
                return Failure(request.id, -32601, "The client takes no event stream, so it can't be asked.")
            asked = self.question(server, upstream, request)
            if isinstance(asked, Failure):
                return asked
            id = str(asked.id)
            self._asked[id] = answered
            ids.append(id)
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
                raise RedisUnavailable
            held = await self._home.records.compare_and_set(self.key, name, made, before)
        except RedisUnavailable:
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
            await live.converse(link_of(upstream), talk, _tell_nobody, _ask_nobody)
        except (GatewayError, SessionExpired) as error:
            log.warning("server %s did not take %s: %s", server, method, error)

    async def _fresh_record(self) -> Record | None:
        """The record as it is now, None without Redis. Raises SessionNotFound."""
        if self.offline or self.unwritten:
            return None
        try:
            record = await self._home.records.read(self.key)
        except RedisUnavailable:
            return None
        if record is None:
            self._home.drop(self.key)
            raise SessionNotFound
        self.record = record
        return record

    async def all_upstream(self) -> Mapping[str, UpstreamSession]:
        """Every session that this client has with a server, at whichever worker it was made."""
        record = await self._fresh_record()
        if record is not None:
            self.upstream = {**record.upstream, **self._unsettled}
        return self.upstream

    async def _change(self, fields: Mapping[str, str]) -> None:
        try:
            if not (self.offline or self.unwritten) and not await self._home.records.change(self.key, fields):
                self._home.drop(self.key)
                raise SessionNotFound
        except RedisUnavailable:
            return
        await self._home.tell("record", self.key)

    async def _post(self, question: Question, message: Reply | Failure | Notification) -> None:
        upstream = self.upstream.get(question.server)
        if upstream is None or upstream.handle != question.handle:
            upstream = (await self.all_upstream()).get(question.server)
        if upstream is None or upstream.handle != question.handle:
            log.info("dropped a late answer to a question of %s", question.server)
            return
        await self._send(question.server, upstream, message)

    async def _post_everywhere(self, message: Notification) -> None:
        upstream = await self.all_upstream()
        await asyncio.gather(*(self._send(server, session, message) for server, session in upstream.items()))

    async def _send(self, server: str, upstream: UpstreamSession, message: Reply | Failure | Notification) -> None:
        live = self._home.live(server)
        if live is None or live.spec.fingerprint != upstream.fingerprint:
            log.info("dropped a message for server %s, which is another one now", server)
            return
        try:
            await live.post(link_of(upstream), message)
        except (GatewayError, SessionExpired, TimeoutError) as error:
            log.warning("server %s did not take a message: %s", server, error)

    async def let_go(self) -> None:
        """Forget the session here: what only this worker knows of is ended."""
        await end(self._opening.values())
        for server, upstream in self._unsettled.items():
            await self._home.end_upstream(server, upstream)


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


def link_of(upstream: UpstreamSession) -> Link:
    return Link(upstream.handshake, upstream.session_id, upstream.holder)


def _loud_enough(level: object, least: str | None) -> bool:
    if least is None or level not in versions.LOG_LEVELS:
        return True
    return versions.LOG_LEVELS.index(str(level)) >= versions.LOG_LEVELS.index(least)


async def _tell_nobody(_: object) -> None:
    """What a replay hears on the way is nobody's."""


async def _ask_nobody(request: Request, answered: Callable[[], None]) -> Failure:
    return Failure(request.id, -32601, "Nobody can be asked now.")
