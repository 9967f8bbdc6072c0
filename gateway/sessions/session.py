"""One client session as a worker knows it: its requests under way, its upstream sessions, both directions.

Any worker can serve any session, several at once, without a lock between them. What they share:

- the record in Redis (`record`): what the client declared, its log level, its subscriptions, its upstream sessions;
- ids that are functions of the client's own: a request's id upstream (`protocol/exchange`) and the id of a
  server's question (`model/question_ids`). So a cancellation, or an answer, that reaches another worker than the call
  did is passed on by that worker alone, with the right id;
- words over Redis pub/sub (`stores/words`): a cancellation reaches the worker that carries the request, an answer
  gives the call that waits for it its time again, the end of the session ends what is under way everywhere.

A question is answered once: the first worker to claim its id in Redis (`once`) passes the answer on. Without Redis an
answer may be passed on twice, which the server drops.

States: *open*; *ended* (somebody sent DELETE, it expired, or it was idle too long): requests under way are cancelled,
later ones get 404. A session that this worker has not been asked for in a long time is forgotten, not ended.
Source: MCP 2025-11-25, basic, lifecycle and transports.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson

from gateway.deadlines import Guard
from gateway.errors import RequestCancelled, SessionNotFound, TooManySubscriptions, UpstreamProtocolError
from gateway.model.endpoints import Endpoint
from gateway.model.principals import MASTER
from gateway.model.question_ids import Question, QuestionIds, UnknownQuestion
from gateway.model.server import Server
from gateway.model.session_ids import SessionId
from gateway.protocol.exchange import read_own, upstream_id
from gateway.protocol.messages import Failure, Id, Notification, Reply, Request
from gateway.sessions.get_stream import GetStream
from gateway.sessions.links import Links
from gateway.sessions.record import LocalRecord, Record, UpstreamRecord, subscription
from gateway.sessions.translation import Translation, introduction
from gateway.sessions.upstream_sessions import UpstreamSessions
from gateway.stores.hints import Hints
from gateway.stores.redis import Redis, RedisUnavailable
from gateway.stores.words import CancelRequest, QuestionAnswered, RecordChanged
from gateway.upstream.contract import NO_EVENTS, Events, SessionExpired
from gateway.upstream.pool import Pool

_MAX_URI = 8192  # characters of a URI that is subscribed to
_CANCELLED = object()  # a reason to cut a call

log = logging.getLogger("gateway.sessions")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all sessions of a worker have in common."""

    pool: Pool
    links: Links
    redis: Redis
    hints: Hints
    question_ids: QuestionIds
    next_id: Callable[[], str]
    """An id for a request of the gateway's own, that no worker used."""


class Session:
    """One client session, as this worker knows it."""

    def __init__(
        self, id: SessionId, principal: str, address: Endpoint, local: LocalRecord, around: Surroundings
    ) -> None:
        """`principal` is the id of who opened it."""
        self.id = id
        self.key = id.key
        self.owner = principal, address.name
        self.address = address
        self._key = None if principal == MASTER else principal
        self.server = address.server
        self.local = local
        self.upstream = UpstreamSessions(local, around.links, around.hints, around.next_id)
        self.get_stream: GetStream | None = None
        self.ended = False
        self._around = around
        self._under_way: dict[Guard, Id] = {}
        self._waiting: dict[str, Callable[[], None]] = {}
        self._translation: Translation | None = None

    @property
    def version(self) -> str:
        """The revision of MCP that was agreed upon."""
        return self.local.record.version

    @property
    def busy(self) -> bool:
        return bool(self._under_way) or self.get_stream is not None

    def translation(self) -> Translation:
        """How its client and its servers understand each other, as of its record now."""
        record = self.local.record
        known = self._translation
        if known is None or known.capabilities is not record.capabilities or known.level != record.level:
            known = self._translation = Translation(
                self.key,
                self.server,
                record.version,
                record.capabilities,
                record.level,
                self._around.question_ids,
                self._around.links.public_uri,
            )
        return known

    async def settle(self, record: Record | None) -> None:
        """Redis answers again: go by its record (None: ours is there now). Raises RedisUnavailable."""
        keep = not self.local.offline
        self.local.settled()
        await self.upstream.settle(keep=keep)
        if record is not None:
            self.local.record = record
            self.upstream.known = dict(record.upstream)

    # --- from the client upstream -------------------------------------------------------------------------------

    async def call(
        self,
        server: Server,
        request: Request,
        events: Events = NO_EVENTS,
        guard: Guard | None = None,
        *,
        can_ask: bool = True,
    ) -> Reply | Failure:
        """Carry a client's request over its own session with a server; the answer has the id that it has there.

        `can_ask` tells whether the client can be asked something meanwhile. Raises RequestCancelled, SessionNotFound
        or UpstreamError.
        """
        pool, id, name = self._around.pool, request.id, server.name
        if guard is None:
            guard = Guard(pool.alarms)
        self._under_way[guard] = id
        try:
            link, upstream = pool.links.get(name), self.upstream.known.get(name)
            if link is None or link.spec is not server.spec:
                link = pool[server]
            if upstream is None or upstream.fingerprint != server.spec.fingerprint:
                upstream = await self.upstream.get(server, link)
            if type(id) is not int:
                request = Request(upstream_id(id), request.method, request.params)
            for attempt in (1, 2):
                follow = partial(_Outward, self, name, upstream, events, can_ask)
                try:
                    return await link.call(upstream.session, request, follow, guard, key=self._key)
                except SessionExpired as error:
                    log.debug("session with %s expired: %s", name, error)
                    if attempt == 1:
                        upstream = await self.upstream.get(server, link, upstream)
        except asyncio.CancelledError:
            if guard.took(_CANCELLED):
                raise SessionNotFound if self.ended else RequestCancelled from None
            raise
        finally:
            del self._under_way[guard]
        raise _unknown_session(server)

    async def ask(self, server: Server, request: Request) -> Reply | Failure:
        """Carry a request of the gateway's own over the session's own with a server.

        Raises SessionNotFound or UpstreamError.
        """
        link = self._around.pool[server]
        upstream = await self.upstream.get(server, link)
        for _ in range(2):
            sent = Request(self._around.next_id(), request.method, request.params)
            try:
                return await link.call(upstream.session, sent)
            except SessionExpired:
                upstream = await self.upstream.get(server, link, upstream)
        raise _unknown_session(server)

    async def answer(self, message: Reply | Failure) -> None:
        """Pass a client's answer on to the server that asked; one without a question, or a second one, is dropped."""
        try:
            question = self.translation().question_of(message.id)
        except UnknownQuestion:
            log.info("dropped an answer without a question")
            return
        try:
            if not await self._around.redis.once(f"{self.key}:{message.id}"):
                log.info("dropped a second answer to a question of %s", question.server)
                return
        except RedisUnavailable:
            pass  # better twice than never: the server drops the second
        if isinstance(message.id, str) and not self.question_answered(message.id):
            await self._around.hints.broadcast(QuestionAnswered(self.key, message.id))
        await self._post(question, message.under(question.id))

    def question_answered(self, id: str) -> bool:
        """Give the call that waits for a client's answer its usual time again; False if it is not under way here."""
        call = self._waiting.pop(id, None)
        if call is not None:
            call()
        return call is not None

    async def notify(self, notification: Notification) -> None:
        """Pass on a client's notification."""
        params = notification.params
        match notification.method:
            case "notifications/cancelled":
                await self.cancel(params.get("requestId"), params)
            case "notifications/progress":
                try:
                    question = self.translation().question_of(params.get("progressToken"))
                except UnknownQuestion:
                    return
                await self._post(question, replace(notification, params={**params, "progressToken": question.id}))
            case "notifications/roots/list_changed":
                await self.upstream.post_everywhere(notification)

    async def _post(self, question: Question, message: Reply | Failure | Notification) -> None:
        upstream = await self.upstream.find(question.server, question.handle)
        if upstream is None:
            log.info("dropped a late answer to a question of %s", question.server)
            return
        await self.upstream.post(question.server, upstream, message)

    async def cancel(self, id: object, params: Mapping[str, Any]) -> None:
        """Cancel a client's request, wherever it is under way."""
        if isinstance(id, bool) or not isinstance(id, str | int):
            return
        if not self.cancel_here(id):
            await self._around.hints.broadcast(CancelRequest(self.key, id))
            cancelled = Notification("notifications/cancelled", {**params, "requestId": upstream_id(id)})
            await self.upstream.post_everywhere(cancelled)

    def cancel_here(self, id: Id) -> bool:
        """Cancel a request if it is this worker that carries it; the server is told."""
        under_way = [guard for guard, each in self._under_way.items() if each == id]
        for guard in under_way:
            guard.cut(_CANCELLED)
        return bool(under_way)

    def cancel_all(self) -> None:
        """The session is over: so is what it has under way."""
        self.ended = self.upstream.closed = True
        for guard in list(self._under_way):
            guard.cut(_CANCELLED)
        if self.get_stream is not None:
            self.get_stream.close()

    # --- what is remembered of the client -----------------------------------------------------------------------

    async def set_level(self, level: str) -> None:
        """Remember a log level, and pass it to every server of the session that logs."""
        await self.remember_level(level)
        await self.upstream.call_everywhere("logging/setLevel", {"level": level}, "logging")

    async def remember_level(self, level: str) -> None:
        """Remember a log level that was passed on already."""
        await self._change(replace(self.local.record, level=level), {"level": level})

    def check_subscription(self, server: str, uri: str, limit: int) -> None:
        """Whether the client may subscribe to one more resource of a server. Raises TooManySubscriptions."""
        pairs = self.local.record.subscriptions
        if len(uri) > _MAX_URI:
            raise TooManySubscriptions(f"The URI has more than {_MAX_URI} characters.")
        if len(pairs) >= limit and (server, uri) not in pairs:
            raise TooManySubscriptions(
                f"The session has {limit} subscriptions already (GATEWAY_MAX_SUBSCRIPTIONS); unsubscribe from some."
            )

    async def subscribed(self, server: str, uri: str, *, to: bool) -> None:
        """Remember that the client subscribed to a server's resource, or does not any more."""
        pairs = self.local.record.subscriptions
        record = replace(self.local.record, subscriptions=pairs | {(server, uri)} if to else pairs - {(server, uri)})
        if to:
            await self._change(record, {subscription(server, uri): "1"})
        else:
            self.local.record = record
            if await self.local.forget(subscription(server, uri)):
                await self._around.hints.broadcast(RecordChanged(self.key))

    async def introduce(self, version: str, params: Mapping[str, Any], limit: int) -> None:
        """Remember what the client says of itself, where its session came before its `initialize`.

        Raises HelloTooLarge.
        """
        capabilities, client_info = introduction(params, limit)
        await self._change(
            replace(self.local.record, version=version, capabilities=capabilities, client_info=client_info),
            {
                "version": version,
                "capabilities": orjson.dumps(capabilities).decode(),
                "client": orjson.dumps(client_info).decode(),
            },
        )

    async def _change(self, record: Record, fields: Mapping[str, str]) -> None:
        self.local.record = record
        if await self.local.change(fields):
            await self._around.hints.broadcast(RecordChanged(self.key))


def _unknown_session(server: Server) -> UpstreamProtocolError:
    return UpstreamProtocolError(server.name, f"Server {server.name!r} does not know the session that it just made.")


class _Outward:
    """What comes from a server during one call, on its way to the client."""

    read = staticmethod(read_own)

    def __init__(self, session: Session, server: str, upstream: UpstreamRecord, events: Events, can_ask: bool) -> None:
        self._session = session
        self._server = server
        self._upstream = upstream
        self._events = events
        self._can_ask = can_ask
        self._question_ids: list[str] = []

    @property
    def events(self) -> Events:
        return self

    async def on_stream(self) -> None:
        await self._events.on_stream()

    async def on_interruption(self) -> None:
        await self._events.on_interruption()

    async def on_message(self, message: Notification | Request) -> None:
        if isinstance(message, Notification):
            passed = self._session.translation().outward(self._server, self._upstream, message)
            if passed is not None:
                await self._events.on_message(passed)

    async def ask(self, request: Request, answered: Callable[[], None]) -> Failure | None:
        """Pass a server's question on; why it can't be asked, if so."""
        if not self._can_ask:
            return Failure(request.id, -32601, "The client takes no event stream, so it can't be asked.")
        question = self._session.translation().question(self._server, self._upstream, request)
        if isinstance(question, Failure):
            return question
        id = str(question.id)
        self._session._waiting[id] = answered
        self._question_ids.append(id)
        await self._events.on_message(question)
        return None

    def close(self) -> None:
        for id in self._question_ids:
            self._session._waiting.pop(id, None)
