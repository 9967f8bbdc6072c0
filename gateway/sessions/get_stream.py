"""One client's own stream (GET): what its servers send by themselves, and that lists changed.

The worker that holds the client's stream holds those of its upstream sessions too. What comes faster than the client
reads is dropped, with a count; that a list changed is said once however often it is heard.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import aclosing

from gateway.errors import GatewayError
from gateway.model.endpoints import Endpoint
from gateway.model.grants import Grants
from gateway.model.view import View
from gateway.protocol import versions
from gateway.protocol.exchange import Ask, Changed, Emit, SendBack, read_own
from gateway.protocol.messages import Failure, Message, Notification, Request, encode
from gateway.sessions.links import Links
from gateway.sessions.record import UpstreamRecord
from gateway.sessions.translation import Translation
from gateway.sessions.upstream_sessions import UpstreamSessions
from gateway.tasks import end
from gateway.upstream.contract import NoStream, SessionExpired

_MAX_WAITING = 1000  # messages, and
_MAX_BYTES = 8 << 20  # bytes of them, that a client has not read
_LOOK_AGAIN_SECONDS = 60.0
_AGAIN_SECONDS = 0.25
_MAX_AGAIN_SECONDS = 30.0
_MAX_ASKED = 100  # questions of one server that wait in the stream at once
_ANNOUNCE_EVERY = 0.5  # seconds between two notifications that the same list changed
_FOLLOWS_WITHIN = 5.0  # seconds in which the catalogue shows what a server said of its lists
_AGGREGATE_WAITS = 3.0  # seconds for the catalogue to show it, before the client is told all the same

log = logging.getLogger("gateway.get_stream")


class _Told:
    """When a list was last said to have changed, by us and by the server itself, and the timer of the next time."""

    __slots__ = ("sent_at", "server_said_at", "timer")

    def __init__(self) -> None:
        self.sent_at = self.server_said_at = 0.0
        self.timer: asyncio.TimerHandle | None = None


class GetStream:
    """What one client gets on its own stream; ask `next` for it until it is `closed`."""

    __slots__ = (  # thousands of them wait
        "_bytes",
        "_closed",
        "_dropped",
        "_is_announced",
        "_links",
        "_looked_at",
        "_looking",
        "_looks_once_more",
        "_places",
        "_questions",
        "_sessions",
        "_silent",
        "_told",
        "_translation",
        "_upstream",
        "_waiter",
        "_waiting",
        "grants",
        "server",
        "token",
        "toolset",
    )

    def __init__(
        self,
        address: Endpoint,
        translation: Callable[[], Translation],
        upstream: UpstreamSessions,
        links: Links,
        grants: Grants | None,
        dropped: Callable[[], None],
    ) -> None:
        """Of what `grants` don't give at the address nothing is heard."""
        self.server = address.server
        self.toolset = address.toolset
        self._translation = translation
        self._sessions = upstream
        self._links = links
        self.grants = grants
        self._dropped = dropped
        self._waiting: list[tuple[bytes, bool]] = []  # what to send, and whether it is a question
        self._bytes = 0
        self._questions = 0
        self._silent: frozenset[str] = frozenset()
        self._is_announced = False
        self._waiter: asyncio.Future[None] | None = None
        self._upstream: dict[str, tuple[UpstreamRecord, asyncio.Task[None]]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looks_once_more = False
        self._places: dict[str, str] = {}
        self._told: defaultdict[str, _Told] = defaultdict(_Told)  # by the notification's method
        self._closed = False
        self._looked_at = 0.0
        self.token = os.urandom(8).hex()
        upstream.watch(self.look)

    # --- for the client's stream --------------------------------------------------------------------------------

    async def next(self, seconds: float) -> bytes | None:
        """What to send next, None if nothing came for so long or it is over (`closed`)."""
        if not self._waiting and not self._closed:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self._wake)  # a timer alone: thousands of streams wait here
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if not self._waiting:
            return None
        payload, is_question = self._waiting.pop(0)
        self._bytes -= len(payload)
        self._questions -= is_question
        return payload

    @property
    def closed(self) -> bool:
        return self._closed and not self._waiting

    def close(self) -> None:
        """Come to an end: another stream took over, the session is over, or the worker drains."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def opened_elsewhere(self, token: str) -> None:
        """A stream of this session was opened somewhere: who is announced after us takes over."""
        if token == self.token:
            self._is_announced = True
        elif self._is_announced:
            self.close()

    async def end(self) -> None:
        """Let go of everything."""
        self.close()
        self._sessions.unwatch(self.look)
        for told in self._told.values():
            if told.timer is not None:
                told.timer.cancel()
        tasks = [task for _, task in self._upstream.values()]
        await end([*tasks, *([self._looking] if self._looking else [])])

    # --- that lists changed -------------------------------------------------------------------------------------

    def server_changed(self, server: str, method: str) -> None:
        """A server said that a list changed.

        At its own address the client is told at once. At the aggregate it is told when the catalogue shows it, or,
        should the catalogue show no difference, a little later. Who may not see all of the server is told when what
        they see of it changed, and not before.
        """
        if method not in versions.LIST_CHANGES:
            return
        now = time.monotonic()
        if not self._links.is_whole(server, self.grants, self.toolset):
            return
        if self.server is None:
            self._announce_at(method, now + _AGGREGATE_WAITS)
        elif self.server == server:
            self._told[method].server_said_at = now
            self._announce_soon(method)

    def catalogue_changed(self, method: str) -> None:
        """The catalogue shows that a list changed."""
        told = self._told[method]
        if time.monotonic() - told.server_said_at < _FOLLOWS_WITHIN:
            return  # it is what the server itself said a moment ago
        if told.timer is not None:
            told.timer.cancel()
            told.timer = None
        self._announce_soon(method)

    def _announce_soon(self, method: str) -> None:
        self._announce_at(method, max(time.monotonic(), self._told[method].sent_at + _ANNOUNCE_EVERY))

    def _announce_at(self, method: str, at: float) -> None:
        told = self._told[method]
        if told.timer is not None or self._closed:
            return

        def announce() -> None:
            told.timer = None
            told.sent_at = time.monotonic()
            self.put(Notification(method))

        delay = at - time.monotonic()
        if delay <= 0:
            announce()
        else:
            told.timer = asyncio.get_running_loop().call_later(delay, announce)

    def put(self, message: Notification | Request) -> None:
        """Have something said, if the client keeps up."""
        if self._closed:
            return
        payload = encode(message)
        full = self._waiting and self._bytes + len(payload) > _MAX_BYTES
        if full or len(self._waiting) >= _MAX_WAITING:
            self._dropped()
            return
        is_question = isinstance(message, Request)
        self._waiting.append((payload, is_question))
        self._bytes += len(payload)
        self._questions += is_question
        self._wake()

    # --- the streams of upstream sessions -----------------------------------------------------------------------

    def look(self) -> None:
        """See whether there are upstream sessions that are not listened to yet.

        A look that is under way may have read the record before one more was in it: another look follows that one.
        """
        if self._looking is not None:
            self._looks_once_more = True
        elif not self._closed:
            self._looks_once_more = False
            self._looked_at = time.monotonic()
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(self._looked)

    def _looked(self, _: asyncio.Task[None]) -> None:
        self._looking = None  # thousands of streams wait, and none needs it any more
        if self._looks_once_more:
            self.look()

    def look_again(self) -> None:
        """Look once more, now and then: a word of another worker may have been lost."""
        if time.monotonic() - self._looked_at >= _LOOK_AGAIN_SECONDS:
            self.look()

    def servers_came(self, names: Collection[str]) -> None:
        """Servers take calls again, or are known here at last: of those with which the session has one, listen."""
        if not self._sessions.known.keys().isdisjoint(names):
            self.look()

    def forget_others(self, view: View) -> None:
        """Stop listening to servers that are gone, or are others now, or may not be seen any more."""
        for server, (session, task) in self._upstream.items():
            part = view.parts.get(server)
            found = None if part is None else part.server
            if found is None or not found.spec.enabled or found.spec.fingerprint != session.fingerprint:
                task.cancel()

    async def _look(self) -> None:
        try:
            upstream = await self._sessions.all()
        except GatewayError:
            return
        for server, session in upstream.items():
            known = self._upstream.get(server)
            same = known is not None and known[0].handle == session.handle
            if known is not None and same and (not known[1].done() or session.handle in self._silent):
                continue
            if known is not None and not same:
                await end([known[1]])
                self._places.pop(server, None)
            self._upstream[server] = session, asyncio.create_task(self._listen(server, session))

    async def _listen(self, server: str, upstream: UpstreamRecord) -> None:
        pause = _AGAIN_SECONDS
        while not self._closed:
            link = self._links.of(server, upstream)
            if link is None or not self._links.is_seen(server, self.grants, self.toolset):
                return
            began = time.monotonic()
            try:
                async with aclosing(link.listen(upstream.session, self._places.get(server))) as stream:
                    async for heard in stream:
                        if heard.event_id is not None:
                            self._places[server] = heard.event_id
                        await self._on_message(server, upstream, heard.message)
            except NoStream:
                self._silent |= {upstream.handle}
                return
            except SessionExpired:
                return  # a call makes a session anew, and that one is listened to
            except GatewayError as error:
                log.debug("the stream of %s broke: %s", server, error)
            pause = _AGAIN_SECONDS if time.monotonic() - began > pause else min(2 * pause, _MAX_AGAIN_SECONDS)
            await asyncio.sleep(pause)

    async def _on_message(self, server: str, upstream: UpstreamRecord, message: Message) -> None:
        link = self._links.of(server, upstream)
        if link is None or not isinstance(message, Request | Notification):
            return
        match read_own(message):
            case SendBack(answer):
                await link.post(upstream.session, answer)
            case Ask(request):
                question = (
                    self._translation().question(server, upstream, request)
                    if self._questions < _MAX_ASKED
                    else Failure(request.id, -32000, "The client has too many requests waiting.")
                )
                if isinstance(question, Failure):
                    await link.post(upstream.session, question)
                else:
                    self.put(question)
            case Changed(notification):
                link.lists_changed(notification.method)  # which comes back by the broadcast to all workers
            case Emit(notification):
                if not self._may_hear(server, notification):
                    return
                if (passed := self._translation().outward(server, upstream, notification)) is not None:
                    self.put(passed)

    def _may_hear(self, server: str, notification: Notification) -> bool:
        """Whether what a server says is of something that the client may see: grants may be others since it asked."""
        uri = notification.params.get("uri")
        if notification.method != "notifications/resources/updated" or not isinstance(uri, str):
            return True
        return self._links.sees_uri(server, uri, self.grants, self.toolset)
