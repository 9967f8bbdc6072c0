"""What goes wrong around sessions: bursts, lost hints, gaps of Redis, servers that become others."""

import asyncio
import json
from typing import Any

import pytest

from gateway.protocol.messages import Notification, Reply, Request
from gateway.sessions import sessions
from gateway.stores.words import UpstreamOpened
from gateway.upstream.memory import Emit, MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import OWN, STREAM, asking, call, counting, initialize, inside, next_message, offer, request, tell
from tests.waiting import until

pytestmark = pytest.mark.anyio
DEMO = {"name": "demo", "url": "http://demo.test/mcp"}


async def test_a_burst_is_no_outage(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer()
    async with open_app() as (app, one), open_app() as (_, two):
        await one.ask("POST", "/mcp/servers", value=DEMO)
        sessions = await asyncio.gather(*(initialize(one) for _ in range(100)))
        assert all(each.local.is_shared and not each.upstream.unsettled for each in inside(app).sessions.here())
        answers = await asyncio.gather(*(call(two, session, "echo") for session in sessions[:60]))
        assert all("result" in answer for answer in answers)
        assert all(hello.capabilities for hello in servers["demo"].hellos[-60:])
        assert all(await asyncio.gather(*(inside(app).hints.broadcast(UpstreamOpened("x")) for _ in range(60))))


async def test_a_call_that_takes_its_time_to_end_is_cancelled_once(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    began = asyncio.Event()

    async def slow_to_end(_: Request, emit: Emit) -> Any:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.3)

    await offer(workers[0], demo, slow=slow_to_end)
    session = await initialize(workers[0])
    calls = [asyncio.create_task(call(workers[0], session, "slow", id=7)) for _ in range(2)]  # the id twice, even
    await began.wait()
    note = {"method": "notifications/cancelled", "params": {"requestId": 7}}
    for _ in range(3):
        assert await tell(workers[0], session, note) == (202, b"")
    assert (await workers[0].ask("DELETE", OWN, headers=session))[0] == 204
    for each in calls:
        assert (await each)["error"]["code"] in (-32044, -32001)
    await until(lambda: not demo.sessions)


async def test_a_session_whose_end_was_not_heard_of_is_over_all_the_same(
    open_app: Open, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers["demo"] = MemoryServer()
    async with open_app(poll_seconds=0.2) as (app, one), open_app(poll_seconds=0.2) as (other, two):

        async def nobody(_: bytes) -> int:
            return 0

        await one.ask("POST", "/mcp/servers", value=DEMO)
        await until(lambda: "demo__echo" in str(inside(other).sync.catalogue.servers))  # else its stream tells of it
        session = await initialize(one)
        async with two.open("GET", OWN, headers={**session, **STREAM}) as stream:
            monkeypatch.setattr(inside(app).hints, "broadcast", nobody)
            assert (await one.ask("DELETE", OWN, headers=session))[0] == 204
            assert await stream.events() == []
        assert (await two.ask("POST", OWN, value=request("ping"), headers=session))[0] == 404


async def test_a_worker_that_can_not_ask_redis_asks_whether_a_session_is_over(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer()
    async with open_app() as (_, one):
        await one.ask("POST", "/mcp/servers", value=DEMO)
        over, lasting = await initialize(one), await initialize(one)
        assert (await one.ask("DELETE", OWN, headers=over))[0] == 204
    async with open_app() as (app, two):  # it reads no ends at its start
        inside(app).redis.rest(1e9)
        answers = [await two.ask("POST", OWN, value=request("ping"), headers=each) for each in (over, lasting)]
        assert [status for status, _, _ in answers] == [404, 200]


async def test_a_record_that_could_not_be_dropped_is_dropped_when_redis_is_back(
    open_app: Open, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_REAP_SECONDS", 0.1)
    servers["demo"] = MemoryServer()
    async with open_app() as (app, one), open_app() as (other, two):
        await one.ask("POST", "/mcp/servers", value=DEMO)
        await until(lambda: "demo__echo" in str(inside(other).sync.catalogue.servers))  # else it asks the server itself
        session = await initialize(two)
        assert (await call(two, session, "echo"))["result"]
        inside(app).redis.rest(1e9)
        assert (await one.ask("DELETE", OWN, headers=session))[0] == 204
        assert await inside(other).sessions.count() == 1
        inside(app).redis.rest(0)
        await until(lambda: not servers["demo"].sessions)
        assert await inside(other).sessions.count() == 0


async def test_without_its_record_a_session_begins_anew(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer()
    async with open_app() as (app, client):
        await client.ask("POST", "/mcp/servers", value=DEMO)
        session = await initialize(client)
        records = inside(app).redis
        await records.do(lambda store: store.flushdb())
        status, _, answer = await client.ask("POST", OWN, value=request("tools/call", name="echo"), headers=session)
        assert (status, answer["error"]["code"]) == (404, -32001)
        assert (await client.ask("POST", OWN, value=request("ping"), headers=session))[0] == 404


async def test_requests_that_miss_a_session_together_have_an_error_each(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer()
    async with open_app() as (app, one), open_app() as (_, two):
        await one.ask("POST", "/mcp/servers", value=DEMO)
        session = await initialize(one)
        await inside(app).redis.do(lambda store: store.flushdb())
        bodies = [request("ping", number) for number in range(1, 9)]
        answers = await asyncio.gather(*(two.ask("POST", OWN, value=body, headers=session) for body in bodies))
        assert [(status, answer["id"]) for status, _, answer in answers] == [(404, number) for number in range(1, 9)]


async def test_what_was_made_without_redis_is_settled_when_it_is_back(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer()
    async with open_app() as (app, one), open_app() as (other, two):
        await one.ask("POST", "/mcp/servers", value=DEMO)
        session = await initialize(one)
        inside(other).redis.rest(1e9)
        assert (await call(two, session, "echo"))["result"]
        assert servers["demo"].hellos[-1].capabilities == {}
        inside(other).redis.rest(0)
        for worker in (one, two, one, two):
            assert (await call(worker, session, "echo"))["result"]
        assert servers["demo"].hellos[-1].capabilities != {}
        await until(lambda: len(servers["demo"].sessions) == 1)
        inside(app).redis.rest(1e9)
        alone = await initialize(one)
        assert (await call(one, alone, "echo"))["result"]
        inside(app).redis.rest(0)
        assert (await call(one, alone, "echo"))["result"]
        assert (await call(two, alone, "echo"))["result"]
        assert len(servers["demo"].sessions) == 2
        for each in (session, alone):
            assert (await two.ask("DELETE", OWN, headers=each))[0] == 204
        await until(lambda: not servers["demo"].sessions)


async def test_a_recording_survives_a_gap_of_redis(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer(tools={"counting": counting})
    async with open_app() as (app, one), open_app() as (_, two):
        await one.ask("POST", "/mcp/servers", value=DEMO)
        session = await initialize(one)
        body = request("tools/call", 9, name="counting")
        async with one.open("POST", OWN, value=body, headers=session) as stream:
            first = await stream.event()
            assert first is not None
            await until(lambda: not inside(app).event_log.unwritten)
            inside(app).redis.rest(1e9)
            await stream.events()
        inside(app).redis.rest(0)
        async with two.open("GET", OWN, headers={**session, **STREAM, "last-event-id": first.id or ""}) as stream:
            rest = [json.loads(event.data) for event in await stream.events()]
        assert rest[-1]["id"] == 9


async def test_an_event_that_is_yet_to_come_can_not_be_the_last(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    await offer(workers[0], demo, counting=counting)
    session = await initialize(workers[0])
    async with workers[0].open("POST", OWN, value=request("tools/call", name="counting"), headers=session) as stream:
        [*_, last] = await stream.events()
    headers = {**session, **STREAM, "last-event-id": f"{(last.id or '').partition('_')[0]}_999"}
    status, _, answer = await workers[1].ask("GET", OWN, headers=headers)
    assert (status, answer["error"]["code"]) == (400, -32043)


async def test_a_question_is_answered_once_however_its_id_is_spelt(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    await offer(workers[0], demo, asks=asking(demo, "roots/list"))
    session = await initialize(workers[0])
    async with workers[0].open("POST", OWN, value=request("tools/call", name="asks"), headers=session) as stream:
        question = await next_message(stream)
        id = question["id"]
        for spelt in (id + "=", id + "==", id[:-1] + chr(ord(id[-1]) + 1), id):
            await tell(workers[1], session, {"id": spelt, "result": {"roots": []}})
        assert "result" in await next_message(stream)
    assert len([each for each in demo.posted if isinstance(each, Reply)]) == 1


async def test_a_server_that_became_another_is_not_heard_and_gets_no_answers(
    workers: tuple[Client, Client], demo: MemoryServer, servers: Servers
) -> None:
    servers["new"] = MemoryServer()
    session = await initialize(workers[0])
    await call(workers[0], session, "echo")
    async with workers[0].open("GET", OWN, headers={**session, **STREAM}) as stream:
        await until(lambda: bool(demo.streams))
        demo.say(Request("q", "roots/list", {}))
        question = await next_message(stream)
        await workers[1].ask("PATCH", "/mcp/servers/demo", value={"url": "http://new.test/mcp"})
        await until(lambda: not demo.streams)
        assert await tell(workers[0], session, {"id": question["id"], "result": {"roots": []}}) == (202, b"")
    assert servers["new"].posted == []


async def test_a_log_line_does_not_shorten_the_time_for_an_answer(open_app: Open, servers: Servers) -> None:
    async def asks(_: Request, emit: Emit) -> Any:
        await emit(Request("q", "roots/list", {}))
        await emit(Notification("notifications/message", {"level": "info", "data": "waiting"}))
        await asyncio.sleep(0.8)
        return {"content": []}

    servers["demo"] = MemoryServer(tools={"asks": asks})
    async with open_app(call_seconds=0.3, call_cap_seconds=20) as (_, client):
        await client.ask("POST", "/mcp/servers", value=DEMO)
        session = await initialize(client)
        assert "result" in await call(client, session, "asks")
