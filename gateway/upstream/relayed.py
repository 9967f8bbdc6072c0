"""Upstream sessions that are bound to one process: other workers reach the holder through Redis.

The old SSE transport's sessions live with a connection, and those of programs with a child of the bridge: only the
worker that opened them, or the workers beside that bridge, can carry their messages. Every other worker is an
*asker*:

1. It puts an errand (`send`, `listen`, `post` or `end`) into the holder's inbox, with the name of a reply stream.
2. The holder reads its inbox, carries the errand out on its own upstream, and adds what comes to the reply stream:
   messages, `a` (the server answers with a stream), `i` (that was interrupted), `x` (it failed, and why), `e` (the
   end).
3. The asker follows that stream and raises what an upstream raises.

Ends: the asker that wants no more says so to all workers (`ErrandStopped`), and the holder cancels the errand. A
holder without a heartbeat is lost: before the errand SessionExpired (nothing was sent), in its middle OutcomeUnknown.
The holder looks after its askers, too, and drops the errands of dead ones. A reply stream whose asker does not keep
up is full, and ends the errand. An unread inbox is gone after 30 s. Without Redis a held session can't be
reached elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.errors import GatewayError, InvalidRequest, OutcomeUnknown, UpstreamError, UpstreamUnreachable
from gateway.protocol.exchange import Handshake, Hello
from gateway.protocol.messages import Batch, Failure, Message, Notification, Reply, Request, decode_answer, encode
from gateway.stores.inbox import Inbox
from gateway.stores.redis import Redis, RedisUnavailable
from gateway.stores.words import ErrandStopped, Word
from gateway.tasks import end, keep
from gateway.upstream.contract import (
    Heard,
    Interrupted,
    MessageStream,
    NoStream,
    SessionExpired,
    StreamOpened,
    Upstream,
    UpstreamSession,
)

_BEAT_AGAIN_SECONDS = 2.0
_LOOK_SECONDS = 10.0

log = logging.getLogger("gateway.relayed")


class Relay:
    """The inboxes that this worker reads, and the way into those of others."""

    def __init__(
        self,
        redis: Redis,
        inbox: Inbox,
        worker: str,
        broadcast: Callable[[Word], Awaitable[int]],
        bridge: str | None = None,
    ) -> None:
        """`broadcast` reaches every worker; `bridge` names the process beside this one that runs stdio servers."""
        self._redis = redis
        self._inbox = inbox
        self._broadcast = broadcast
        self._tasks: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self.worker = worker
        self.bridge = bridge
        self.holders: set[str] = {worker} | ({bridge} if bridge is not None else set())
        """For whom this worker can speak: itself, and the bridge beside it."""

    # --- the asker's side -----------------------------------------------------------------------------------------

    async def ask(self, holder: str, errand: dict[str, Any]) -> AsyncGenerator[dict[bytes, bytes], None]:
        """Give a holder an errand; yield what comes back. Raises SessionExpired when the holder is gone.

        Raises RedisUnavailable.
        """
        if not await self._lives(holder):
            raise SessionExpired("the worker that held it is gone")
        stream = f"relay-{os.urandom(12).hex()}"
        await self._inbox.push(holder, orjson.dumps({**errand, "reply": stream, "asker": self.worker}))

        async def check(_: str) -> None:
            if not await self._lives(holder):
                raise HolderLost

        whole = False
        try:
            async with aclosing(self._inbox.follow(stream, check)) as entries:
                async for id, fields in entries:
                    await self._inbox.consumed(stream, id, sum(map(len, fields.values())))
                    if b"e" in fields:
                        whole = True
                        return
                    yield fields
        finally:
            if not whole:  # whichever worker took the errand
                await asyncio.shield(self._broadcast(ErrandStopped(stream)))

    async def _lives(self, worker: str) -> bool:
        """Tell whether a worker is there; a heartbeat that went with a restart of Redis comes back."""
        if await self._redis.lives(worker):
            return True
        await asyncio.sleep(_BEAT_AGAIN_SECONDS)
        return await self._redis.lives(worker)

    # --- the holder's side ----------------------------------------------------------------------------------------

    async def serve(self, find: Callable[[str], Upstream | None]) -> None:
        """Carry out errands until cancelled; `find` gives the upstream of a server."""
        looking = asyncio.create_task(keep("orphaned errands", self._drop_orphans))
        try:
            while True:
                try:
                    errand = await self._next()
                    if errand is not None:
                        self._begin(errand, find)
                except RedisUnavailable:
                    await asyncio.sleep(1)
        finally:
            await end([looking, *(task for _, task in self._tasks.values())])

    def stopped(self, stream: str) -> None:
        """An errand is wanted no more."""
        if (found := self._tasks.get(stream)) is not None:
            found[1].cancel()

    async def _drop_orphans(self) -> None:
        """End errands whose asker died, until cancelled; beside the inbox, which must not wait for a dead asker."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for asker in {asker for asker, _ in self._tasks.values()}:
                try:
                    lives = await self._lives(asker)
                except RedisUnavailable:
                    continue
                if not lives:
                    for stream in [stream for stream, (who, _) in self._tasks.items() if who == asker]:
                        self.stopped(stream)

    async def _next(self) -> Errand | None:
        found = await self._inbox.next(self.holders)
        try:
            return None if found is None else Errand.from_bytes(found)
        except (GatewayError, ValueError, TypeError, KeyError) as error:
            log.warning("an errand that can't be read (%s)", type(error).__name__)
            return None

    def _begin(self, errand: Errand, find: Callable[[str], Upstream | None]) -> None:
        task = asyncio.create_task(self._carry_out(errand, find))
        self._tasks[errand.reply] = errand.asker, task
        task.add_done_callback(lambda _: self._tasks.pop(errand.reply, None))

    async def _carry_out(self, errand: Errand, find: Callable[[str], Upstream | None]) -> None:
        """Do what an errand says; whatever happens, its asker is told."""
        stream = errand.reply
        try:
            upstream = find(errand.server)
            if upstream is None:
                raise SessionExpired("the server is not registered there")
            await self._do(errand, upstream)
            await self._inbox.append(stream, b"", b"e")
        except (SessionExpired, NoStream) as error:
            await self._fail(stream, [type(error).__name__, str(error)])
        except GatewayError as error:
            await self._fail(stream, [error.code, error.detail])
        except RedisUnavailable:
            log.warning("an errand's outcome could not be told")
        except Exception:
            log.exception("an errand for server %s failed", errand.server)
            await self._fail(stream, [GatewayError.code, "The gateway failed here; its log has the cause."])

    async def _do(self, errand: Errand, upstream: Upstream) -> None:
        match errand.kind, errand.message:
            case "send", Request() as request:
                answer = await upstream.call(errand.session, request)
                if isinstance(answer, Reply | Failure):
                    await self._say(errand.reply, answer)
                    return
                async with aclosing(answer) as messages:
                    async for message in messages:
                        await self._say(errand.reply, message)
            case "listen", None:
                async with aclosing(upstream.listen(errand.session, errand.after)) as stream:
                    async for each in stream:
                        await self._say(errand.reply, each.message)
            case "post", Notification() | Reply() | Failure() as note:
                await upstream.post(errand.session, note)
            case "end", None:
                await upstream.end(errand.session)
            case kind, _:
                raise InvalidRequest(f"There is no errand {kind[:40]!r} with this message.")

    async def _say(self, stream: str, message: Message | StreamOpened | Interrupted) -> None:
        match message:
            case StreamOpened():
                kept = await self._inbox.append(stream, b"1", b"a")
            case Interrupted():
                kept = await self._inbox.append(stream, b"", b"i")
            case _:
                kept = await self._inbox.append(stream, encode(message))
        if not kept:
            raise OutcomeUnknown("", "The worker that asked does not take the answer.")

    async def _fail(self, stream: str, why: list[Any]) -> None:
        try:
            await self._inbox.append(stream, orjson.dumps(why), b"x")
        except RedisUnavailable:
            pass


@dataclass(frozen=True, slots=True)
class Errand:
    """What a holder is to do: `send`, `listen`, `post` or `end` on its session; what comes back goes to `reply`."""

    kind: str
    server: str
    session: UpstreamSession
    reply: str
    asker: str
    message: Message | None
    after: str | None

    @classmethod
    def from_bytes(cls, data: bytes) -> Errand:
        """Read one from an inbox. Raises ValueError, TypeError, KeyError or GatewayError for what is none."""
        value = orjson.loads(data)
        message = decode_answer(value["message"].encode()) if "message" in value else None
        if isinstance(message, Batch):
            raise TypeError("a batch")
        known, session_id, holder, *_ = value["link"]  # a newer version may have more
        session = UpstreamSession(Handshake(*known[:4]), session_id, holder)
        kind, server, reply, after = value["kind"], value["server"], value["reply"], value.get("after")
        if not all(isinstance(each, str) for each in (kind, server, reply)) or not isinstance(after, str | None):
            raise TypeError("a field of the wrong type")
        return cls(kind, server, session, reply, str(value.get("asker", "")), message, after)


class HolderLost(Exception):
    """The holder died while it carried out an errand."""


class RelayedUpstream:
    """An upstream whose sessions are held by the process that opened them."""

    def __init__(self, server: str, own: Upstream, relay: Relay) -> None:
        self._server = server
        self.own = own
        self._relay = relay

    async def open(self, hello: Hello) -> UpstreamSession:
        return await self.own.open(hello)

    async def call(self, session: UpstreamSession, request: Request) -> Reply | Failure | MessageStream:
        if self._is_ours(session):
            return await self.own.call(session, request)
        answers = self._replies(session, self._errand("send", session, message=encode(request).decode()))
        try:
            first = await anext(answers, None)
        except BaseException:
            await answers.aclose()
            raise
        if isinstance(first, Reply | Failure):
            await answers.aclose()
            return first
        return self._messages(first, answers)

    async def _messages(
        self, first: StreamOpened | Interrupted | Message | None, answers: MessageStream
    ) -> MessageStream:
        async with aclosing(answers):
            if first is not None:
                yield first
                async for answer in answers:
                    yield answer
                    if isinstance(answer, Reply | Failure):
                        return
        raise OutcomeUnknown(self._server, f"Server {self._server!r} ended its answer without a result.")

    async def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        if self._is_ours(session):
            async with aclosing(self.own.listen(session, after)) as stream:
                async for each in stream:
                    yield each
            return
        async with aclosing(self._replies(session, self._errand("listen", session, after=after))) as messages:
            async for message in messages:
                if not isinstance(message, StreamOpened | Interrupted):
                    yield Heard(message, None)

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        if self._is_ours(session):
            await self.own.post(session, message)
        else:
            await self._done(session, self._errand("post", session, message=encode(message).decode()))

    async def end(self, session: UpstreamSession) -> None:
        if self._is_ours(session):
            await self.own.end(session)
            return
        try:
            await self._done(session, self._errand("end", session))
        except (UpstreamError, SessionExpired):
            pass  # it went with its holder

    async def close(self) -> None:
        await self.own.close()

    def _is_ours(self, session: UpstreamSession) -> bool:
        return session.holder is None or session.holder in self._relay.holders

    def _errand(self, kind: str, session: UpstreamSession, **more: Any) -> dict[str, Any]:
        shake = session.handshake
        known = [shake.version, shake.capabilities, shake.server_info, None]
        return {"kind": kind, "server": self._server, "link": [known, session.session_id, session.holder], **more}

    async def _done(self, session: UpstreamSession, errand: dict[str, Any]) -> None:
        async with aclosing(self._replies(session, errand)) as answers:
            async for _ in answers:
                pass

    async def _replies(self, session: UpstreamSession, errand: dict[str, Any]) -> MessageStream:
        try:
            async with aclosing(self._relay.ask(session.holder or "", errand)) as entries:
                async for fields in entries:
                    if b"x" in fields:
                        self._raise(*orjson.loads(fields[b"x"]))
                    elif b"a" in fields:
                        yield StreamOpened()
                    elif b"i" in fields:
                        yield Interrupted()
                    else:
                        said = decode_answer(fields[b"d"])
                        if not isinstance(said, Batch):
                            yield said
        except HolderLost:
            raise OutcomeUnknown(
                self._server, f"The worker that held the session with server {self._server!r} was lost meanwhile."
            ) from None
        except RedisUnavailable:
            raise UpstreamUnreachable(
                self._server,
                f"Server {self._server!r} is held by another worker, which can't be reached: Redis does not answer.",
            ) from None

    def _raise(self, kind: Any, detail: str) -> None:
        if kind == "SessionExpired":
            raise SessionExpired(detail)
        if kind == "NoStream":
            raise NoStream
        found = next((each for each in UpstreamError.__subclasses__() if each.code == kind), None)
        raise found(self._server, detail) if found is not None else OutcomeUnknown(self._server, detail)
