"""The old HTTP+SSE transport, its messages posted to another worker than the one that holds the stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.protocol.messages import Notification, Reply
from gateway.upstream.memory import MemoryServer
from tests.asgi import Answer, Client
from tests.fix_gateway import Open
from tests.talk import EVERYTHING, asking, inside, next_message, offer, request
from tests.waiting import until

pytestmark = pytest.mark.anyio
SSE = {"accept": "text/event-stream"}


class Old:
    """A client of 2024-11-05: one stream, messages beside it."""

    def __init__(self, stream: Answer, endpoint: str) -> None:
        self.stream = stream
        self.endpoint = endpoint

    async def post(self, worker: Client, value: Any) -> tuple[int, Any]:
        status, _, body = await worker.ask("POST", self.endpoint, value=value)
        return status, body

    async def ask(self, worker: Client, method: str, id: Any = 1, **params: Any) -> Any:
        assert await self.post(worker, request(method, id, **params)) == (202, b"")
        answer = await next_message(self.stream)
        assert answer["id"] == id
        return answer.get("result", answer.get("error"))


@asynccontextmanager
async def connected(holder: Client, other: Client, version: str = "2024-11-05") -> AsyncIterator[Old]:
    async with holder.open("GET", "/sse", headers=SSE) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        first = await stream.event()
        assert first is not None
        assert first.name == "endpoint"
        client = Old(stream, first.data.decode())
        result = await client.ask(
            other, "initialize", protocolVersion=version, capabilities=EVERYTHING, clientInfo={"name": "old"}
        )
        assert result["protocolVersion"] == version
        assert await client.post(holder, {"jsonrpc": "2.0", "method": "notifications/initialized"}) == (202, b"")
        yield client


@pytest.mark.parametrize("version", ["2024-11-05", "2025-11-25"])
async def test_calls_questions_and_changes(workers: tuple[Client, Client], demo: MemoryServer, version: str) -> None:
    await offer(workers[0], demo, asks=asking(demo, "roots/list"))
    async with connected(*workers, version=version) as client:
        async with asyncio.timeout(10):  # the other worker has to hear of it first
            tools: list[str] = []
            while tools != ["demo__asks", "demo__echo"]:
                tools = [tool["name"] for tool in (await client.ask(workers[1], "tools/list"))["tools"]]
        for number, worker in enumerate([*workers] * 3):
            result = await client.ask(worker, "tools/call", number, name="demo__echo", arguments={"n": number})
            assert result["content"][0]["text"] == repr({"n": number})
        assert len(demo.sessions) == 1
        calling = asyncio.create_task(client.post(workers[1], request("tools/call", "q", name="demo__asks")))
        question = await next_message(client.stream)
        assert question["method"] == "roots/list"
        said = {"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}}
        assert await client.post(workers[0], said) == (202, b"")
        assert (await next_message(client.stream))["id"] == "q"
        assert await calling == (202, b"")
        await until(lambda: bool(demo.streams))
        demo.say(Notification("notifications/message", {"level": "info", "data": 1}))
        assert (await next_message(client.stream))["method"] == "notifications/message"
        assert isinstance(demo.posted[-1], Reply)
    await until(lambda: not demo.sessions)
    status, _ = await client.post(workers[1], request("ping"))
    assert status == 404


async def test_batches_and_errors_have_their_answers(workers: tuple[Client, Client], demo: MemoryServer) -> None:
    async with connected(*workers) as client:
        batch = [request("ping", 1), {"jsonrpc": "2.0", "id": 2, "nonsense": 1}, request("nothing/here", 3)]
        assert await client.post(workers[1], batch) == (202, b"")
        answers = {(each := await next_message(client.stream))["id"]: each for _ in range(3)}
        assert answers[1]["result"] == {}
        assert answers[2]["error"]["code"] == -32600
        assert answers[3]["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("path", "how", "status"),
    [
        ("/messages", {"value": request("ping")}, 404),
        ("/messages?session_id=nonsense", {"value": request("ping")}, 404),
        ("/messages?session_id=nonsense", {"body": b"{}"}, 415),
    ],
)
async def test_what_is_no_message_of_a_session_is_refused(
    workers: tuple[Client, Client], path: str, how: dict[str, Any], status: int
) -> None:
    got, _, answer = await workers[0].ask("POST", path, **how)
    assert got == status
    assert answer["error"]["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"jsonrpc": "1.0"}', b"\xff"])
async def test_what_is_no_message_is_refused(workers: tuple[Client, Client], body: bytes) -> None:
    async with connected(*workers) as client:
        status, _, answer = await workers[1].ask(
            "POST", client.endpoint, body=body, headers={"content-type": "application/json"}
        )
        assert status == 400
        assert answer["error"]["code"] in (-32700, -32600)


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/sse", 405), ("GET", "/messages", 405)])
async def test_other_methods_are_refused(workers: tuple[Client, Client], method: str, path: str, status: int) -> None:
    assert (await workers[0].ask(method, path))[0] == status


async def test_a_session_of_the_old_transport_is_none_at_mcp(workers: tuple[Client, Client]) -> None:
    async with connected(*workers) as client:
        session = {"mcp-session-id": client.endpoint.partition("=")[2], "accept": "application/json"}
        status, _, _ = await workers[0].ask("POST", "/mcp", value=request("ping"), headers=session)
        assert status == 404


async def test_below_a_mount_point_the_endpoint_is_too(open_app: Open) -> None:
    async with open_app() as (app, client):
        mounted = Client(app, client.headers["authorization"].removeprefix("Bearer "), root_path="/gateway")
        async with mounted.open("GET", "/sse", headers=SSE) as stream:
            first = await stream.event()
            assert first is not None
            assert first.data.decode().startswith("/gateway/messages?session_id=")


async def test_without_redis_it_is_503(open_app: Open) -> None:
    async with open_app() as (app, client):
        inside(app).redis.rest(1e9)
        status, _, answer = await client.ask("GET", "/sse", headers=SSE)
        assert status == 503
        assert "Redis" in answer["detail"]


async def test_a_client_that_does_not_read_is_cut(
    workers: tuple[Client, Client], demo: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(*workers) as client:
        monkeypatch.setattr("gateway.stores.inbox._KEPT", 0)
        await client.post(workers[1], request("ping"))
        await client.stream.events()
        assert (await client.post(workers[1], request("ping")))[0] == 404


async def test_below_the_path_of_the_public_url_the_endpoint_is_too(open_app: Open) -> None:
    async with (
        open_app(public_url="https://tools.test/gate") as (_, client),
        client.open("GET", "/sse", headers=SSE) as stream,
    ):
        first = await stream.event()
        assert first is not None
        assert first.data.decode().startswith("/gate/messages?session_id=")


async def test_a_message_that_fails_after_it_was_taken_has_one_answer(
    workers: tuple[Client, Client], caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(*workers) as client:
        gateway = inside(workers[1].app)  # type: ignore[arg-type]
        [key] = [each.key for each in gateway.sessions.here()]
        await gateway.redis.do(lambda store: store.delete(gateway.redis.key("session", key)))
        note = {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message["type"])

        body = json.dumps(note).encode()
        requests = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return requests.pop()

        path, _, query = client.endpoint.partition("?")
        headers = {**workers[1].headers, "content-type": "application/json"}
        scope = {
            "type": "http", "method": "POST", "path": path, "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        await workers[1].app(scope, receive, send)
        assert sent == ["http.response.start", "http.response.body"]


async def test_a_refused_message_keeps_its_id(workers: tuple[Client, Client]) -> None:
    async with connected(*workers) as client:
        for worker in workers:
            inside(worker.app).redis.rest(1e9)  # type: ignore[arg-type]
        _, answer = await client.post(workers[1], request("ping", "mine"))
        assert (answer["id"], answer["error"]["code"]) == ("mine", -32061)
        for worker in workers:
            inside(worker.app).redis.rest(0)  # type: ignore[arg-type]
