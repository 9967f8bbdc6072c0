"""A server's link: what moves its breaker, who holds it, and how long a call waits."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import (
    OutcomeUnknown,
    RequestCancelled,
    UpstreamProtocolError,
    UpstreamSuspended,
    UpstreamUnreachable,
)
from gateway.model.endpoints import Endpoint
from gateway.model.server import ServerSpec
from gateway.protocol.exchange import Handshake, Hello
from gateway.protocol.messages import Message, Notification, Reply, Request
from gateway.sessions import get_stream
from gateway.sessions.get_stream import GetStream
from gateway.sessions.record import UpstreamRecord
from gateway.stores.redis import _CONNECTIONS, Redis, RedisUnavailable
from gateway.upstream.contract import Heard, UpstreamSession
from gateway.upstream.link import OURSELVES, CallLimits
from gateway.upstream.memory import Emit, MemoryServer, MemoryUpstream
from gateway.upstream.pool import Pool
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import OWN, asking, call, initialize, next_message, offer, request, tell
from tests.waiting import until

pytestmark = pytest.mark.anyio
CALL = Request(1, "tools/call", {"name": "echo"})
SPEC = ServerSpec("demo", "http://demo.test/mcp")


class Scripted(MemoryUpstream):
    """An upstream whose next calls raise what stands in its script."""

    def __init__(self, *script: Exception | None) -> None:
        super().__init__("demo", MemoryServer())
        self.script = list(script)
        self.closed = 0

    async def call(self, session: UpstreamSession, request: Request) -> Reply:
        if self.script and (error := self.script.pop(0)) is not None:
            raise error
        return Reply(request.id, {})

    async def close(self) -> None:
        self.closed += 1


def pool_of(upstream: MemoryUpstream, failures: int = 2) -> Pool:
    limits = CallLimits(5, 10, breaker_failures=failures, breaker_seconds=1)
    return Pool(lambda _: upstream, limits, lambda *_: None, lambda *_, **__: None)


async def test_a_trial_that_meets_a_fault_of_ours_does_not_leave_the_breaker_shut() -> None:
    down = UpstreamUnreachable("demo", "nobody there")
    live = pool_of(Scripted(down, ZeroDivisionError(), None), failures=1)[SPEC]
    with pytest.raises(UpstreamUnreachable):
        await live.call_shared(CALL)
    assert live.breaker() == "open"
    await until(lambda: live.breaker() == "half-open")
    with pytest.raises(ZeroDivisionError):
        await live.call_shared(CALL)
    assert isinstance(await live.call_shared(CALL), Reply)
    assert live.breaker() == "closed"


async def test_an_answer_to_another_request_is_none() -> None:
    class Confused(Scripted):
        async def call(self, session: UpstreamSession, request: Request) -> Reply:
            return Reply(99, {})

    link = pool_of(Confused())[SPEC]
    session = await link.open(OURSELVES)
    with pytest.raises(UpstreamProtocolError, match="without a result"):
        await link.call(session, CALL)
    with pytest.raises(UpstreamProtocolError, match="without a result"):
        await link.call_shared(CALL)


async def test_a_server_that_resets_every_connection_is_left_alone() -> None:
    lost = OutcomeUnknown("demo", "the connection was lost")
    live = pool_of(Scripted(lost, lost, lost))[SPEC]
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await live.call_shared(CALL)
    with pytest.raises(UpstreamSuspended):
        await live.call_shared(CALL)


async def test_a_call_that_its_client_cancels_says_nothing_of_the_server() -> None:
    live = pool_of(Scripted(RequestCancelled(), None))[SPEC]
    with pytest.raises(RequestCancelled):
        await live.call_shared(CALL)
    assert live.breaker() == "closed"


async def test_a_call_that_opens_the_shared_session_ends_before_a_retired_link_closes() -> None:
    """Its server was changed in the registry while the call shook hands."""

    class Slow(Scripted):
        go = asyncio.Event()

        async def open(self, hello: Hello) -> UpstreamSession:
            await self.go.wait()
            return await super().open(hello)

        async def call(self, session: UpstreamSession, request: Request) -> Reply:
            await asyncio.sleep(0.05)
            assert not self.closed, "the link was closed under the call"
            return Reply(request.id, {})

    upstream = Slow()
    made = iter([upstream, Scripted()])
    pool = Pool(lambda _: next(made), CallLimits(5, 10), lambda *_: None, lambda *_, **__: None)
    calling = asyncio.create_task(pool[SPEC].call_shared(CALL))
    await asyncio.sleep(0)
    assert pool[ServerSpec("demo", "http://other.test/mcp")] is not None
    upstream.go.set()
    assert isinstance(await calling, Reply)
    await until(lambda: upstream.closed == 1)
    await pool.close()


async def test_a_caller_that_leaves_a_trial_while_it_opens_leaves_the_next_one_to_others() -> None:
    class Opening(Scripted):
        failing = True
        go = asyncio.Event()

        async def open(self, hello: Hello) -> UpstreamSession:
            if self.failing:
                raise UpstreamUnreachable("demo", "nobody there")
            await self.go.wait()
            return await super().open(hello)

    upstream = Opening()
    link = pool_of(upstream, failures=1)[SPEC]
    with pytest.raises(UpstreamUnreachable):
        await link.call_shared(CALL)
    await until(lambda: link.breaker() == "half-open")
    upstream.failing = False
    leaving = asyncio.create_task(link.call_shared(CALL))
    await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    upstream.go.set()
    assert isinstance(await link.call_shared(CALL), Reply)
    assert link.breaker() == "closed"


async def test_a_retired_link_that_only_listens_is_closed_with_the_pool() -> None:
    upstream, other = Scripted(), Scripted()
    made = iter([upstream, other, Scripted()])
    pool = Pool(lambda _: next(made), CallLimits(5, 10), lambda *_: None, lambda *_, **__: None)
    live = pool[SPEC]
    link = await live.open(OURSELVES)
    stream = live.listen(link, None)
    hearing = asyncio.create_task(anext(stream))
    await until(lambda: bool(upstream._server.streams))
    for url in ("http://other.test/mcp", "http://third.test/mcp"):
        assert pool[ServerSpec("demo", url)] is not live
    assert upstream.closed == 0, "somebody still listens"
    await pool.close()
    assert upstream.closed == 1
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)
    await stream.aclose()


# --- a client's own stream ------------------------------------------------------------------------------------------


class OneUpstream:
    """The upstream sessions of a client: one, with `demo`."""

    def watch(self, call: Any) -> None:
        """Nothing changes."""

    unwatch = watch

    async def all(self) -> Any:
        session = UpstreamSession(Handshake("2025-11-25", {}, {}, None), "s")
        return {"demo": UpstreamRecord("h", session, SPEC.fingerprint)}


def stream_of(link: Any, upstream: Any = None) -> GetStream:
    def question(_: str, __: Any, asked: Request) -> Request:
        return asked

    upstream = upstream or OneUpstream()
    links: Any = SimpleNamespace(of=lambda *_: link, is_seen=lambda *_: True)
    translation: Any = SimpleNamespace(question=question)
    return GetStream(
        Endpoint("/mcp/servers/demo/mcp", "demo"), lambda: translation, upstream, links, None, lambda: None
    )


async def test_questions_that_were_sent_are_counted_no_more() -> None:
    refused: list[Message] = []

    class Questions:
        spec = SPEC
        go = asyncio.Event()

        async def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
            for number in range(150):
                yield Heard(Request(number, "roots/list", {}), None)
                await asyncio.sleep(0)
            await asyncio.Event().wait()

        async def post(self, session: UpstreamSession, message: Message) -> None:
            refused.append(message)

    own_stream = stream_of(Questions())
    own_stream.put(Notification("notifications/message", {"level": "info"}))
    own_stream.look()
    seen: list[bytes] = []
    while len(seen) < 151:
        own_stream.put(Notification("notifications/message", {"level": "info"}))  # it never runs empty
        await asyncio.sleep(0)
        payload = await own_stream.next(1)
        assert not refused
        assert payload is not None
        seen += [payload] if b"roots/list" in payload or not seen else []
    assert refused == []
    await own_stream.end()


async def test_an_upstream_session_that_is_opened_during_a_look_is_listened_to() -> None:
    """The word of it comes while the answer of Redis, which does not have it yet, is on its way."""
    listened: list[str | None] = []

    class Quiet:
        spec = SPEC

        async def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
            listened.append(session.session_id)
            await asyncio.Event().wait()
            yield Heard(Notification("never"), None)

    class Opened(OneUpstream):
        record: Any = None
        read, go = asyncio.Event(), asyncio.Event()

        async def all(self) -> Any:
            record = self.record or {}
            self.read.set()
            await self.go.wait()
            return record

    opened = Opened()
    own_stream = stream_of(Quiet(), opened)
    own_stream.look()
    await opened.read.wait()
    opened.record = await OneUpstream().all()
    own_stream.look()
    opened.go.set()
    await until(lambda: bool(listened))
    await own_stream.end()
    assert listened == ["s"]


async def test_a_stream_that_breaks_is_closed_before_it_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_stream, "_AGAIN_SECONDS", 0.01)
    opened: list[Any] = []

    class Stream:
        closed = False

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Heard:
            raise UpstreamUnreachable("demo", "broken")

        async def aclose(self) -> None:
            self.closed = True

    class Breaking:
        spec = SPEC

        def listen(self, session: UpstreamSession, after: str | None) -> Stream:
            opened.append(Stream())
            stream: Stream = opened[-1]
            return stream

    own_stream = stream_of(Breaking())
    own_stream.look()
    await until(lambda: len(opened) == 3)
    assert [stream.closed for stream in opened[:2]] == [True, True]
    await own_stream.end()


async def test_what_a_server_says_is_not_held_back_for_the_sake_of_a_comment(
    workers: tuple[Client, Client], demo: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.edge.mcp_get._SECOND_SECONDS", 1000.0)
    session = await initialize(workers[0])
    await call(workers[0], session, "echo")
    async with workers[0].open("GET", OWN, headers={**session, "accept": "text/event-stream"}) as stream:
        await until(lambda: bool(demo.streams))
        demo.say(Notification("notifications/message", {"level": "info", "data": 1}))
        assert (await next_message(stream))["params"]["data"] == 1


@pytest.mark.parametrize("answered_at", [0, 1])
async def test_after_its_question_is_answered_a_server_has_its_usual_time_again(
    open_app: Open, servers: Servers, answered_at: int
) -> None:
    demo = servers["demo"] = MemoryServer()
    ask = asking(demo, "roots/list")

    async def asks_and_hangs(asked: Request, emit: Emit) -> Any:
        await ask(asked, emit)
        await asyncio.Event().wait()

    how = {"call_seconds": 0.5, "call_cap_seconds": 1000}
    async with open_app(**how) as (_, one), open_app(**how) as (_, two):
        await one.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
        await offer(one, demo, hang=asks_and_hangs)
        session = await initialize(one)
        body = request("tools/call", name="hang")
        async with one.open("POST", OWN, value=body, headers=session) as stream:
            question = await next_message(stream)
            await asyncio.sleep(1)  # a human thinks
            answerer = (one, two)[answered_at]
            assert (await tell(answerer, session, {"id": question["id"], "result": {"roots": []}}))[0] == 202
            assert (await next_message(stream))["error"]["code"] == -32051


# --- Redis ----------------------------------------------------------------------------------------------------------


async def test_waiting_for_a_turn_at_redis_is_bounded(redis_url: str) -> None:
    redis = Redis(redis_url, "gate-test")

    async def hold(_: Any) -> None:
        await asyncio.sleep(60)

    holders = [asyncio.create_task(redis.do(hold, 60, bulk=True)) for _ in range(_CONNECTIONS)]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        with pytest.raises(RedisUnavailable):
            await redis.do(lambda store: store.ping(), 0.2)
    for each in holders:
        each.cancel()
    await asyncio.gather(*holders, return_exceptions=True)
    assert await redis.answers(), "a burst is no outage"
    await redis.close()
