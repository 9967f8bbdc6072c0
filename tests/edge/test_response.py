"""Answers that fail on their way: a client that left, a record that must end, pieces of a large body."""

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

import pytest

from gateway.edge import request as request_module
from gateway.edge import response as response_module
from gateway.edge.app import Application
from gateway.edge.request import Accepts, Http, Surroundings
from gateway.edge.response import Response, send_bytes
from gateway.errors import ClientLeft
from gateway.protocol.messages import Notification, Request
from gateway.upstream.memory import Emit, MemoryServer
from tests.asgi import Client
from tests.fix_gateway import KEY
from tests.waiting import until

pytestmark = pytest.mark.anyio
Message = MutableMapping[str, Any]


class Record:
    """A recording that remembers whether it ended."""

    first = "0"

    def __init__(self) -> None:
        self.ended = 0
        self.answered: list[object] = []

    def event(self, payload: bytes, answered: object = None) -> str:
        self.answered.append(answered)
        return "1"

    def end(self) -> None:
        self.ended += 1


async def never() -> Any:
    await asyncio.Event().wait()


def http_over(send: Any) -> Http:
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    return Http(scope, never, send, Surroundings(asyncio.Event()))


class Recorded(Response):
    """An answer that is on record, if there is one to be on."""

    record: Any = None

    def _record(self) -> Any:
        return self.record


def answer_over(send: Any, record: Record | None) -> Response:
    answer = Recorded(http_over(send), Accepts.STREAM, 0.05)
    answer.record = record
    return answer


async def test_an_answer_that_can_not_begin_leaves_no_timer_and_no_open_record() -> None:
    record, wrote = Record(), 0

    async def send(_: Message) -> None:
        nonlocal wrote
        wrote += 1
        raise RuntimeError("the server failed")

    with pytest.raises(RuntimeError), answer_over(send, record) as answer:
        await answer.commit()
    assert record.ended == 1
    before = wrote
    await asyncio.sleep(0.2)  # the keep-alive would have come four times
    assert wrote == before


async def test_a_record_ends_with_a_call_that_fails() -> None:
    record = Record()

    async def send(_: Message) -> None:
        """Takes everything."""

    async def fails() -> None:
        with answer_over(send, record) as answer:
            await answer.commit()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert record.ended == 1


async def test_a_recorded_answer_goes_on_without_a_client_that_left_at_its_head() -> None:
    record = Record()

    async def send(_: Message) -> None:
        raise ClientLeft

    with answer_over(send, record) as answer:
        await answer.say(b"{}")
        await answer.finish(b"{}", 1)
    assert record.answered == [None, 1]
    assert record.ended


async def test_a_client_that_does_not_read_its_progress_has_its_call_cancelled_and_is_no_fault_of_ours(
    app: Application,
    registered: MemoryServer,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def talk(request: Request, emit: Emit) -> Any:
        token = request.params["_meta"]["progressToken"]
        for step in range(100):
            await emit(Notification("notifications/progress", {"progressToken": token, "progress": step}))
        await asyncio.Event().wait()

    registered.tools["talk"] = talk
    await client.ask("POST", "/mcp/servers/demo/refresh")
    monkeypatch.setattr(request_module, "_SEND_SECONDS", 0.05)
    bodies = [{"type": "http.request", "body": b"", "more_body": False}]
    bodies[0]["body"] = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"talk","_meta":{"progressToken":1}}}'
    )

    async def receive() -> Any:
        return bodies.pop() if bodies else await never()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await never()

    scope = {
        "type": "http", "method": "POST", "path": "/rpc", "headers": [
            (b"host", b"localhost"), (b"authorization", f"Bearer {KEY}".encode()), (b"accept", b"text/event-stream"),
        ],
    }  # fmt: skip
    with caplog.at_level(logging.INFO):
        async with asyncio.timeout(10):
            await app(scope, receive, send)
    [line] = [each for each in caplog.records if each.name == "gateway.calls"]
    assert line.__dict__["fields"]["outcome"] == "cancelled"
    assert not [each for each in caplog.records if each.exc_info]
    await until(lambda: any(getattr(each, "method", "") == "notifications/cancelled" for each in registered.posted))


async def test_a_large_body_is_copied_once() -> None:
    copied = 0

    class Counted(bytes):
        def __getitem__(self, at: Any) -> Any:
            nonlocal copied
            piece = bytes.__getitem__(self, at)
            copied += len(piece)
            return Counted(piece)

    sent: list[bytes] = []

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    body = Counted(bytes(range(256)) * 16384)
    await send_bytes(http_over(send), 200, body)
    assert b"".join(sent) == body
    assert max(map(len, sent)) <= response_module._PIECE
    assert copied <= len(body)


@pytest.mark.parametrize("size", [0, 1, response_module._PIECE, response_module._PIECE + 1, 2 * response_module._PIECE])
async def test_a_body_of_any_size_arrives_whole(size: int) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await send_bytes(http_over(send), 200, b"x" * size)
    assert b"".join(each["body"] for each in sent[1:]) == b"x" * size
    assert [each.get("more_body", False) for each in sent[1:]] == [True] * (len(sent) - 2) + [False]


async def test_a_wire_knows_when_its_answer_is_finished() -> None:
    async def send(_: Message) -> None:
        """Takes everything."""

    wire = http_over(send)
    await wire.send({"type": "http.response.start", "status": 200, "headers": []})
    await wire.send({"type": "http.response.body", "body": b"x", "more_body": True})
    assert not wire.finished
    await wire.send({"type": "http.response.body", "body": b""})
    assert wire.finished


@pytest.mark.parametrize(("version", "says"), [("1.1", True), ("2", False)])
async def test_a_draining_worker_asks_for_no_further_request_where_http_has_words_for_it(
    app: Application, version: str, says: bool
) -> None:
    heads: list[Message] = []

    async def send(message: Message) -> None:
        heads.append(message)

    app.draining.set()
    scope = {"type": "http", "http_version": version, "method": "GET", "path": "/healthz", "headers": []}
    await app(scope, never, send)
    assert ((b"connection", b"close") in heads[0]["headers"]) is says


@pytest.mark.parametrize("path", ["/mcp/tools", "/mcp/servers", "/mcp/servers/demo", "/v1/mcp/registry.json"])
async def test_head_is_get_without_its_body(client: Client, registered: MemoryServer, path: str) -> None:
    json_only = {"accept": "application/json"}
    async with client.open("GET", path, headers=json_only) as got:
        body = await got.body()
    async with client.open("HEAD", path, headers=json_only) as head:
        assert await head.body() == b""
    assert head.headers["content-length"] == str(len(body)) == got.headers["content-length"]


async def test_a_keep_alive_that_finds_nobody_reading_ends_the_call() -> None:
    """The client is connected, but takes nothing: no progress says so, only the comments."""

    async def send(message: Message) -> None:
        if message.get("body"):
            raise ClientLeft

    async with asyncio.timeout(10):
        with pytest.raises(ClientLeft), answer_over(send, None):
            await asyncio.Event().wait()


async def test_a_batch_whose_client_left_is_no_fault_of_ours(
    app: Application, registered: MemoryServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def left(*_: object) -> None:
        raise ClientLeft

    monkeypatch.setattr(Response, "say", left)

    async def talk(request: Request, emit: Emit) -> Any:
        await emit(Notification("notifications/message", {"level": "info", "data": 1}))
        return {"content": []}

    registered.tools["echo"] = talk
    client = Client(app, KEY)
    batch = [{"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": {"name": "demo__echo"}} for n in (1, 2)]
    with pytest.raises(asyncio.CancelledError):  # there is no answer
        await client.ask("POST", "/rpc", value=batch, headers={"accept": "text/event-stream, application/json"})
    assert not [record for record in caplog.records if record.exc_info]
