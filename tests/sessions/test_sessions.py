"""Sessions over two workers that share nothing but the stores, their upstream in memory."""

import asyncio
import json
from typing import Any

import pytest

from gateway.protocol.messages import Notification, Reply, Request
from gateway.upstream.memory import Emit, MemoryServer
from tests.asgi import Client
from tests.fix_gateway import KEY, Open, Servers
from tests.talk import (
    BOTH,
    EVERYTHING,
    OWN,
    STREAM,
    asking,
    call,
    counting,
    initialize,
    inside,
    next_message,
    offer,
    request,
    tell,
)
from tests.waiting import until

pytestmark = pytest.mark.anyio


# --- a session's own session upstream ------------------------------------------------------------------------------


async def test_every_worker_uses_the_one_upstream_session_of_a_client(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    sessions = [await initialize(workers[0]) for _ in range(2)]
    opened = demo.opened
    for session in sessions:
        for worker in (*workers, *workers):
            assert (await call(worker, session, "echo"))["result"]
    assert demo.opened - opened == 2
    assert len(demo.sessions) == 2 + 1 - 1  # probes are closed; no shared session was needed


async def test_what_the_client_declared_is_what_the_upstream_is_told(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    declared = {**EVERYTHING, "experimental": {"x": {}}, "tasks": {"list": {}}}
    session = await initialize(workers[0], version="2025-06-18", capabilities=declared)
    await call(workers[1], session, "echo")
    hello = demo.hellos[-1]
    assert hello.version == "2025-06-18"
    assert hello.capabilities == {**EVERYTHING, "experimental": {"x": {}}}
    assert hello.client_info == {"name": "me", "version": "7"}


async def test_many_first_calls_at_once_make_one_upstream_session(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    session = await initialize(workers[0])
    await asyncio.gather(*(call(worker, session, "echo", id=number) for number, worker in enumerate([*workers] * 5, 1)))
    assert len(demo.sessions) == 1


async def test_an_upstream_session_that_expired_is_made_anew_once_with_level_and_subscriptions(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    session, other = await initialize(workers[0]), await initialize(workers[0])
    for each in (session, other):
        await call(workers[0], each, "echo")
    await workers[0].ask("POST", OWN, value=request("logging/setLevel", level="warning"), headers=session)
    await workers[1].ask("POST", OWN, value=request("resources/subscribe", uri="a:b"), headers=session)
    kept = sorted(demo.sessions)[-1]
    demo.sessions = {kept}
    demo.requests.clear()
    assert (await call(workers[0], session, "echo"))["result"]
    assert (await call(workers[1], session, "echo"))["result"]
    assert (await call(workers[1], other, "echo"))["result"]
    assert len(demo.sessions) == 2
    assert [each.method for each in demo.requests if each.method != "tools/call"] == [
        "logging/setLevel",
        "resources/subscribe",
    ]


# --- questions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/mcp", OWN])
@pytest.mark.parametrize(
    ("method", "params", "answer"),
    [
        ("sampling/createMessage", {"messages": [], "maxTokens": 5}, {"role": "assistant"}),
        ("roots/list", {}, {"roots": [{"uri": "file:///x"}]}),
        ("elicitation/create", {"message": "Name?", "requestedSchema": {}}, {"action": "accept", "content": {}}),
        ("elicitation/create", {"mode": "url", "url": "https://e.com", "elicitationId": "1"}, {"action": "decline"}),
    ],
)
async def test_an_upstreams_question_is_answered_at_another_worker(
    workers: tuple[Client, Client],
    demo: MemoryServer,
    address: str,
    method: str,
    params: dict[str, Any],
    answer: dict[str, Any],
) -> None:
    await offer(workers[0], demo, asks=asking(demo, method, **params))
    session = await initialize(workers[0], address)
    name = "asks" if address == OWN else "demo__asks"
    body = request("tools/call", 5, name=name)
    async with workers[0].open("POST", address, value=body, headers=session) as stream:
        question = await next_message(stream)
        assert (question["method"], question["params"]) == (method, params)
        for _ in range(2):  # the second is dropped
            said = {"id": question["id"], "result": answer}
            assert await tell(workers[1], session, said, address) == (202, b"")
        result = await next_message(stream)
    assert (result["id"], json.loads(result["result"]["content"][0]["text"])[1]) == (5, answer)
    assert len([each for each in demo.posted if isinstance(each, Reply)]) == 1


@pytest.mark.parametrize(
    ("version", "declared", "method"),
    [
        ("2025-11-25", {}, "sampling/createMessage"),
        ("2025-11-25", {"sampling": {}}, "elicitation/create"),
        ("2025-03-26", {"elicitation": {}}, "elicitation/create"),
        ("2025-11-25", {"sampling": {}}, "tasks/list"),
        ("2025-11-25", {"sampling": {}}, "nonsense/method"),
    ],
)
async def test_what_the_client_never_declared_is_refused_for_it(
    workers: tuple[Client, Client], demo: MemoryServer, version: str, declared: dict[str, Any], method: str
) -> None:
    await offer(workers[0], demo, asks=asking(demo, method))
    session = await initialize(workers[0], version=version, capabilities=declared)
    answer = await call(workers[1], session, "asks")
    assert json.loads(answer["result"]["content"][0]["text"])[1] == {"code": -32601}


async def test_a_client_that_takes_no_stream_can_not_be_asked(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    await offer(workers[0], demo, asks=asking(demo, "roots/list"))
    session = {**await initialize(workers[0]), "accept": "application/json"}
    answer = await call(workers[1], session, "asks")
    assert json.loads(answer["result"]["content"][0]["text"])[1] == {"code": -32601}


@pytest.mark.parametrize("id", [1, "x", "bm90IHNpZ25lZA", "A" * 9000, "ünï", ""])
async def test_an_answer_to_a_question_that_nobody_asked_is_dropped(
    workers: tuple[Client, Client], demo: MemoryServer, id: Any
) -> None:
    session = await initialize(workers[0])
    await call(workers[0], session, "echo")
    assert await tell(workers[1], session, {"id": id, "result": {}}) == (202, b"")
    assert demo.posted == []


async def test_another_sessions_question_can_not_be_answered(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    await offer(workers[0], demo, asks=asking(demo, "roots/list"))
    session, other = await initialize(workers[0]), await initialize(workers[0])
    async with workers[0].open("POST", OWN, value=request("tools/call", name="asks"), headers=session) as stream:
        question = await next_message(stream)
        assert await tell(workers[1], other, {"id": question["id"], "result": {"roots": []}}) == (202, b"")
        assert demo.posted == []
        assert await tell(workers[1], session, {"id": question["id"], "result": {"roots": []}}) == (202, b"")
        assert "result" in await next_message(stream)


async def test_a_late_answer_is_dropped(workers: tuple[Client, Client], demo: MemoryServer) -> None:
    async def hasty(_: Request, emit: Emit) -> Any:
        await emit(Request(1, "roots/list", {}))
        return {"content": []}

    await offer(workers[0], demo, hasty=hasty)
    session = await initialize(workers[0])
    async with workers[0].open("POST", OWN, value=request("tools/call", name="hasty"), headers=session) as stream:
        question = await next_message(stream)
        await next_message(stream)
    assert waited_for(workers[0]) == []
    demo.forget_sessions()
    await call(workers[0], session, "echo")
    assert await tell(workers[1], session, {"id": question["id"], "result": {"roots": []}}) == (202, b"")
    assert demo.posted == []


def waited_for(client: Client) -> list[str]:
    """The questions whose answer a call waits for at this worker."""
    app: Any = client.app
    return [id for session in inside(app).sessions.here() for id in session._waiting]


@pytest.mark.parametrize("ends", ["answered", "cancelled"])
async def test_a_question_is_waited_for_as_long_as_its_call(
    workers: tuple[Client, Client], demo: MemoryServer, ends: str
) -> None:
    await offer(workers[0], demo, asks=asking(demo, "roots/list"))
    session = await initialize(workers[0])
    body = request("tools/call", name="asks")
    async with workers[0].open("POST", OWN, value=body, headers=session) as stream:
        question = await next_message(stream)
        assert waited_for(workers[0]) == [question["id"]]
        if ends == "answered":
            await tell(workers[1], session, {"id": question["id"], "result": {"roots": []}})
        else:
            note = {"method": "notifications/cancelled", "params": {"requestId": body["id"]}}
            await tell(workers[1], session, note)
        await next_message(stream)
    assert waited_for(workers[0]) == []


async def test_progress_on_a_question_finds_its_way(workers: tuple[Client, Client], demo: MemoryServer) -> None:
    await offer(workers[0], demo, asks=asking(demo, "sampling/createMessage", _meta={"progressToken": 3}))
    session = await initialize(workers[0], "/mcp")
    body = request("tools/call", name="demo__asks")
    async with workers[0].open("POST", "/mcp", value=body, headers=session) as stream:
        question = await next_message(stream)
        token = question["params"]["_meta"]["progressToken"]
        note = {"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}
        assert await tell(workers[1], session, note, "/mcp") == (202, b"")
        await tell(workers[1], session, {"id": question["id"], "result": {}}, "/mcp")
        await next_message(stream)
    assert Notification("notifications/progress", {"progressToken": 3, "progress": 1}) in demo.posted


# --- cancelling, ending ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize(("id", "upstream_id"), [(7, 7), ("seven", "c:seven")])
async def test_a_call_is_cancelled_from_any_worker(
    workers: tuple[Client, Client], demo: MemoryServer, where: int, id: Any, upstream_id: Any
) -> None:
    began = asyncio.Event()

    async def hang(_: Request, emit: Emit) -> Any:
        began.set()
        await asyncio.sleep(60)

    await offer(workers[0], demo, hang=hang)
    session = await initialize(workers[0])
    calling = asyncio.create_task(call(workers[0], session, "hang", id=id))
    await began.wait()
    note = {"method": "notifications/cancelled", "params": {"requestId": id, "reason": "changed my mind"}}
    assert await tell(workers[where], session, note) == (202, b"")
    answer = await calling
    assert (answer["id"], answer["error"]["code"]) == (id, -32044)
    await until(lambda: any(isinstance(each, Notification) for each in demo.posted))
    told = [each for each in demo.posted if isinstance(each, Notification)]
    assert {each.params["requestId"] for each in told} == {upstream_id}


@pytest.mark.parametrize("id", [99, None, True, [1], {"a": 1}, "unknown"])
async def test_cancelling_what_is_not_under_way_does_nothing(
    workers: tuple[Client, Client], demo: MemoryServer, id: Any
) -> None:
    session = await initialize(workers[0])
    note = {"method": "notifications/cancelled", "params": {"requestId": id}}
    assert await tell(workers[0], session, note) == (202, b"")
    assert (await call(workers[1], session, "echo"))["result"]


async def test_a_deleted_session_is_over_everywhere_and_upstream_when_the_answer_is_here(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    began = asyncio.Event()

    async def hang(_: Request, emit: Emit) -> Any:
        began.set()
        await asyncio.sleep(60)

    await offer(workers[0], demo, hang=hang)
    session = await initialize(workers[0])
    calling = asyncio.create_task(call(workers[0], session, "hang"))
    await began.wait()
    async with workers[0].open("GET", OWN, headers={**session, **STREAM}) as stream:
        status, _, _ = await workers[1].ask("DELETE", OWN, headers=session)
        assert status == 204
        for worker in workers:
            assert (await worker.ask("POST", OWN, value=request("ping"), headers=session))[0] == 404
        assert await stream.events() == []
    assert (await calling)["error"]["code"] == -32001
    await until(lambda: not demo.sessions)


async def test_an_idle_session_expires_and_one_that_is_used_does_not(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer()
    async with open_app(session_idle_seconds=2.0) as (app, client):
        await client.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
        idle, used, listens = [await initialize(client) for _ in range(3)]
        for each in (idle, used, listens):
            await call(client, each, "echo")
        async with client.open("GET", OWN, headers={**listens, **STREAM}):
            status = 200
            async with asyncio.timeout(20):
                while status == 200:
                    await asyncio.sleep(0.2)
                    assert (await call(client, used, "echo"))["result"]
                    if len(demo_sessions := servers["demo"].sessions) < 3:
                        status, _, _ = await client.ask("POST", OWN, value=request("ping"), headers=idle)
            assert status == 404
            assert len(demo_sessions) == 2
            assert (await call(client, listens, "echo"))["result"]
            assert await inside(app).sessions.count() == 2


async def test_a_principal_has_a_number_of_sessions(open_app: Open) -> None:
    async with open_app(max_sessions=2) as (_, client):
        first = await initialize(client, "/mcp")
        await initialize(client, "/mcp")
        body = request("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={})
        status, _, refused = await client.ask("POST", "/mcp", value=body, headers=BOTH)
        assert (status, refused["error"]["code"]) == (429, -32059)
        assert "GATEWAY_MAX_SESSIONS" in refused["error"]["message"]
        await client.ask("DELETE", "/mcp", headers=first)
        await initialize(client, "/mcp")


# --- levels, subscriptions, list changes ------------------------------------------------------------------------------


async def test_the_aggregate_filters_logs_by_the_level_that_was_set_at_any_worker(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    async def logs(_: Request, emit: Emit) -> Any:
        for level in ("debug", "warning"):
            await emit(Notification("notifications/message", {"level": level, "data": level}))
        return {"content": []}

    await offer(workers[0], demo, logs=logs)
    session = await initialize(workers[0], "/mcp")
    body = request("tools/call", name="demo__logs")

    async def heard(worker: Client) -> list[str]:
        async with worker.open("POST", "/mcp", value=body, headers=session) as stream:
            messages = [json.loads(event.data) for event in await stream.events()]
        return [each["params"]["level"] for each in messages if "method" in each]

    assert await heard(workers[0]) == await heard(workers[1]) == ["debug", "warning"]
    level = request("logging/setLevel", level="error")
    assert (await workers[1].ask("POST", "/mcp", value=level, headers=session))[2]["result"] == {}
    async with asyncio.timeout(10):
        while [await heard(workers[0]), await heard(workers[1])] != [[], []]:
            pass
    assert [each.params for each in demo.requests if each.method == "logging/setLevel"] == [{"level": "error"}]
    wrong = request("logging/setLevel", level="loud")
    assert (await workers[1].ask("POST", "/mcp", value=wrong, headers=session))[2]["error"]["code"] == -32602


async def test_a_subscription_made_at_one_worker_is_heard_at_another(
    workers: tuple[Client, Client], demo: MemoryServer, servers: Servers
) -> None:
    demo.resources.append({"uri": "file:///a", "name": "a"})
    servers["twin"] = MemoryServer(resources=[{"uri": "file:///a", "name": "a"}])
    await workers[0].ask("POST", "/mcp/servers/demo/refresh")
    await workers[0].ask("POST", "/mcp/servers", value={"name": "twin", "url": "http://twin.test/mcp"})
    session = await initialize(workers[0], "/mcp")
    async with workers[1].open("GET", "/mcp", headers={**session, **STREAM}) as stream:
        for uri in ("file:///a", "mcp-gateway://twin/file:///a"):
            body = request("resources/subscribe", uri=uri)
            status, _, answer = await workers[0].ask("POST", "/mcp", value=body, headers=session)
            assert (status, "result" in answer) == (200, True), answer
        assert servers["twin"].requests[-1].params == {"uri": "file:///a"}
        for name, uri in (("demo", "file:///a"), ("twin", "mcp-gateway://twin/file:///a")):
            await until(lambda name=name: bool(servers[name].streams))  # type: ignore[misc]
            servers[name].say(Notification("notifications/resources/updated", {"uri": "file:///a"}))
            message = await next_message(stream)
            while message["method"].endswith("list_changed"):  # this worker may hear of the twin only now
                message = await next_message(stream)
            assert message["params"] == {"uri": uri}


async def test_a_server_that_was_switched_off_and_on_is_heard_again(client: Client, registered: MemoryServer) -> None:
    session = await initialize(client, "/mcp")
    await call(client, session, "demo__echo", "/mcp")
    async with client.open("GET", "/mcp", headers={**session, **STREAM}) as stream:
        await until(lambda: bool(registered.streams))
        await client.ask("PATCH", "/mcp/servers/demo", value={"enabled": False})
        await until(lambda: not registered.streams)
        await client.ask("PATCH", "/mcp/servers/demo", value={"enabled": True})
        await until(lambda: bool(registered.streams))
        registered.say(Notification("notifications/message", {"level": "error", "data": "again"}))
        while (message := await next_message(stream))["method"].endswith("list_changed"):
            pass
        assert message["params"]["data"] == "again"


async def test_a_question_on_the_own_stream_is_answered_too(workers: tuple[Client, Client], demo: MemoryServer) -> None:
    session = await initialize(workers[0])
    await call(workers[0], session, "echo")
    async with workers[1].open("GET", OWN, headers={**session, **STREAM}) as stream:
        await until(lambda: bool(demo.streams))
        demo.say(Request("r", "roots/list", {}))
        demo.say(Request("p", "ping", {}))
        question = await next_message(stream)
        assert question["method"] == "roots/list"
        await tell(workers[0], session, {"id": question["id"], "result": {"roots": []}})
        await until(lambda: len(demo.posted) == 2)
    assert {each.id for each in demo.posted if isinstance(each, Reply)} == {"r", "p"}


@pytest.mark.parametrize("address", ["/mcp", OWN])
async def test_a_list_change_reaches_the_clients_of_every_worker(
    workers: tuple[Client, Client], demo: MemoryServer, address: str
) -> None:
    speaker = await initialize(workers[0])
    await call(workers[0], speaker, "echo")
    sessions = [await initialize(worker, address) for worker in workers]
    async with (
        workers[0].open("GET", OWN, headers={**speaker, **STREAM}),
        workers[0].open("GET", address, headers={**sessions[0], **STREAM}) as first,
        workers[1].open("GET", address, headers={**sessions[1], **STREAM}) as second,
    ):
        await until(lambda: bool(demo.streams))
        demo.say(Notification("notifications/tools/list_changed"))
        for stream in (first, second):
            assert (await next_message(stream))["method"] == "notifications/tools/list_changed"


async def test_a_flood_is_dropped_with_a_count_and_list_changes_are_said_once(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer()
    async with open_app() as (app, client):
        await client.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
        session = await initialize(client)
        await call(client, session, "echo")
        async with client.open("GET", OWN, headers={**session, **STREAM}) as stream:
            await until(lambda: bool(servers["demo"].streams))
            [known] = inside(app).sessions.here()
            own_stream = known.get_stream
            assert own_stream is not None
            for _ in range(100):
                servers["demo"].say(Notification("notifications/tools/list_changed"))
            for number in range(1500):
                own_stream.put(Notification("notifications/message", {"level": "info", "data": number}))
            heard = [await next_message(stream) for _ in range(1000)]
        assert "gateway_notifications_dropped_total" in inside(app).metrics.exposition().decode()
        assert sum(each["method"] == "notifications/message" for each in heard) >= 999
        assert sum(each["method"].endswith("list_changed") for each in heard) <= 2


async def test_the_newest_own_stream_wins(workers: tuple[Client, Client], demo: MemoryServer) -> None:
    session = await initialize(workers[0])
    async with (
        workers[0].open("GET", OWN, headers={**session, **STREAM}) as older,
        workers[1].open("GET", OWN, headers={**session, **STREAM}),
    ):
        assert await older.events() == []


# --- streams that are cut ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(6))
@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18"])
async def test_a_stream_that_is_cut_goes_on_at_another_worker_without_a_gap(
    workers: tuple[Client, Client], demo: MemoryServer, cut: int, version: str
) -> None:
    await offer(workers[0], demo, counting=counting)
    session = await initialize(workers[0], version=version)
    demo.requests.clear()
    seen = []
    body = request("tools/call", 9, name="counting")
    async with workers[0].open("POST", OWN, value=body, headers=session) as stream:
        last = None
        for _ in range(cut):
            event = await stream.event()
            assert event is not None
            last = event.id
            seen.append(json.loads(event.data))
        if version == "2025-11-25" and last is None:
            await stream.prime()
            last = stream.primings[0].id
        # leaving the block is a hang-up, which waits for the call to end: it goes on without its client
    if last is None:
        return  # nothing was seen, so there is nothing to take up
    assert last is not None
    async with workers[1].open("GET", OWN, headers={**session, **STREAM, "last-event-id": last}) as stream:
        events = await stream.events()
    seen += [json.loads(event.data) for event in events]
    assert [each["params"]["data"] for each in seen[:-1]] == [0, 1, 2, 3, 4]
    assert (seen[-1]["id"], seen[-1]["result"]) == (9, {"content": []})
    assert len([each for each in demo.requests if each.method == "tools/call"]) == 1


async def test_a_stream_whose_worker_died_ends_with_outcome_unknown(
    open_app: Open, workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    session = await initialize(workers[0])
    async with open_app() as (app, dying):
        event_log = inside(app).event_log
        await call(dying, session, "echo")
        [key] = [each.key for each in inside(app).sessions.here()]
        recording = event_log.begin(key, [41, "x"])
        first = recording.event(b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}')
        await until(lambda: not event_log.unwritten)
    status, _, _ = await workers[1].ask("POST", OWN, value=request("ping"), headers=session)
    assert status == 200
    async with workers[1].open("GET", OWN, headers={**session, **STREAM, "last-event-id": first}) as stream:
        errors = [json.loads(event.data) for event in await stream.events()]
    assert [(each["id"], each["error"]["code"]) for each in errors] == [(41, -32053), ("x", -32053)]


@pytest.mark.parametrize("last", ["nonsense", "0" * 24 + "_1", "ü", "0" * 24 + "_", "a" * 5000])
async def test_an_event_id_that_is_not_ours_is_an_error_that_says_so(
    workers: tuple[Client, Client], demo: MemoryServer, last: str
) -> None:
    session = await initialize(workers[0])
    headers = {**session, **STREAM, "last-event-id": last}
    status, _, answer = await workers[0].ask("GET", OWN, headers=headers)
    assert (status, answer["error"]["code"]) == (400, -32043)


async def test_another_sessions_stream_can_not_be_resumed(workers: tuple[Client, Client], demo: MemoryServer) -> None:
    await offer(workers[0], demo, counting=counting)
    session, other = await initialize(workers[0]), await initialize(workers[0])
    body = request("tools/call", 9, name="counting")
    async with workers[0].open("POST", OWN, value=body, headers=session) as stream:
        [first, *_] = await stream.events()
    headers = {**other, **STREAM, "last-event-id": first.id or ""}
    status, _, answer = await workers[1].ask("GET", OWN, headers=headers)
    assert (status, answer["error"]["code"]) == (400, -32043)


async def test_resuming_past_what_is_kept_is_an_error_and_not_a_gap(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer(tools={"counting": counting})
    async with open_app(resume_bytes=1024) as (app, client):
        await client.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
        session = await initialize(client)
        [key] = [each.key for each in inside(app).sessions.here()]
        recording = inside(app).event_log.begin(key, [1])
        events = [json.dumps({"n": number, "fill": "x" * 400}).encode() for number in range(5)]
        ids = [recording.event(event, 1 if event is events[-1] else None) for event in events]
        recording.end()
        for last, whole in ((ids[0], False), (ids[2], True)):
            headers = {**session, **STREAM, "last-event-id": last}
            async with client.open("GET", OWN, headers=headers) as stream:
                messages = [json.loads(event.data) for event in await stream.events()]
            if whole:
                assert [each["n"] for each in messages] == [3, 4]
            else:
                assert [each["error"]["code"] for each in messages] == [-32043]


async def test_what_the_own_stream_said_meanwhile_is_said_at_the_next(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    session = await initialize(workers[0])
    await call(workers[0], session, "echo")
    async with workers[0].open("GET", OWN, headers={**session, **STREAM}) as stream:
        await until(lambda: bool(demo.streams))
        for number in range(3):
            demo.say(Notification("notifications/message", {"level": "info", "data": number}))
        first = await stream.event()
        assert first is not None
        await stream.event()
        await stream.event()
    headers = {**session, **STREAM, "last-event-id": first.id or ""}
    async with workers[1].open("GET", OWN, headers=headers) as stream:
        assert [(await next_message(stream))["params"]["data"] for _ in range(2)] == [1, 2]


async def test_a_client_that_stops_reading_is_cut_and_its_call_goes_on(
    open_app: Open, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.edge.request._SEND_SECONDS", 0.05)
    servers["demo"] = MemoryServer(tools={"counting": counting})
    async with open_app() as (app, client):
        await client.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
        session = await initialize(client)
        sent: list[bytes] = []

        async def deaf(scope: Any, receive: Any, send: Any) -> None:
            async def stuck(message: Any) -> None:
                if message["type"] == "http.response.body" and len(sent) >= 2:
                    await asyncio.sleep(60)
                sent.append(message.get("body", b""))
                await send(message)

            await app(scope, receive, stuck)

        body = request("tools/call", 9, name="counting")
        async with Client(deaf, KEY).open("POST", OWN, value=body, headers=session) as stream:
            await stream.prime()
        last = stream.primings[0].id or ""
        headers = {**session, **STREAM, "last-event-id": last}
        async with client.open("GET", OWN, headers=headers) as stream:
            messages = [json.loads(event.data) for event in await stream.events()]
        assert [each["params"]["data"] for each in messages[:-1]] == [0, 1, 2, 3, 4]
        assert messages[-1]["id"] == 9
