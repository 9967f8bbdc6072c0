"""Streams of upstreams that end before the answer, their own streams, and the old transport, over wire bytes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from gateway.errors import OutcomeUnknown, UpstreamError, UpstreamProtocolError, UpstreamRefused
from gateway.model.address_policy import Allowed
from gateway.net.dialer import Dialer, Vetting
from gateway.protocol.exchange import Hello
from gateway.protocol.messages import Failure, Notification, Reply, Request
from gateway.upstream.contract import Heard, Interrupted, NoStream, SessionExpired
from gateway.upstream.http_sse import HttpSseUpstream
from gateway.upstream.link import OURSELVES
from gateway.upstream.wire import WireLimits
from tests.calls import messages_of
from tests.waiting import until
from tests.wire import CALL, HELLO, PROGRESS, Wire, event, http, reply, upstream

pytestmark = pytest.mark.anyio
NOTE = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}'


def sse(*parts: bytes) -> bytes:
    return http(200, "text/event-stream", b"".join(parts), length=False)


def primed(id: str, retry: int = 1) -> bytes:
    return f"id: {id}\nretry: {retry}\ndata: \n\n".encode()


def with_id(id: str, data: bytes) -> bytes:
    return b"id: " + id.encode() + b"\ndata: " + data + b"\n\n"


async def call(wire: Wire) -> list[object]:
    found: list[object] = []
    async with upstream(wire.url) as one, asyncio.timeout(10):
        link = await one.open(OURSELVES)
        async with aclosing(messages_of(one, link, CALL)) as messages:
            async for message in messages:
                found.append(message)
                if isinstance(message, Reply | Failure):
                    break
    return found


async def test_a_call_whose_stream_ends_early_is_taken_up_by_get_after_the_time_the_server_names(wire: Wire) -> None:
    wire.answers["tools/call"] = sse(primed("e1"), with_id("e2", PROGRESS))
    wire.answers["GET"] = sse(with_id("e3", reply(1, {"ok": 1})))
    found = await call(wire)
    assert [type(each) for each in found][-2:] == [Interrupted, Reply]
    method, headers, _ = wire.seen[-1]
    assert (method, headers["last-event-id"], headers["mcp-session-id"]) == ("GET", "e2", "s1")
    assert [method for method, _, message in wire.seen if message.get("method") == "tools/call"] == ["POST"]


async def test_a_stream_without_event_ids_can_not_be_taken_up(wire: Wire) -> None:
    wire.answers["tools/call"] = sse(event(PROGRESS))
    with pytest.raises(OutcomeUnknown):
        await call(wire)
    assert "GET" not in [method for method, _, _ in wire.seen]


@pytest.mark.parametrize(
    "answer", [http(404, "", b""), http(405, "", b""), http(500, "", b""), http(200, "application/json", b"{}"), None]
)
async def test_a_resume_that_fails_leaves_the_outcome_unknown_and_repeats_nothing(
    wire: Wire, answer: bytes | None
) -> None:
    wire.answers["tools/call"] = sse(primed("e1"))
    wire.answers["GET"] = answer
    with pytest.raises(OutcomeUnknown):
        await call(wire)
    assert len([1 for _, _, message in wire.seen if message.get("method") == "tools/call"]) == 1


async def test_a_stream_that_always_ends_early_is_given_up(wire: Wire) -> None:
    wire.answers["tools/call"] = sse(primed("e1"))
    wire.answers["GET"] = sse(primed("e1"))
    with pytest.raises(OutcomeUnknown):
        await call(wire)
    assert 1 < len([1 for method, _, _ in wire.seen if method == "GET"]) < 20


async def test_its_own_stream_is_heard_with_event_ids(wire: Wire) -> None:
    wire.answers["GET"] = sse(primed("a"), with_id("b", NOTE))
    async with upstream(wire.url) as one, asyncio.timeout(10):
        link = await one.open(OURSELVES)
        async with aclosing(one.listen(link, "before")) as heard:
            assert [each async for each in heard] == [
                Heard(Notification("notifications/message", {"level": "info", "data": 1}), "b")
            ]
    assert next(headers for method, headers, _ in wire.seen if method == "GET")["last-event-id"] == "before"


@pytest.mark.parametrize(
    ("answer", "error"),
    [(http(405, "", b""), NoStream), (http(404, "", b""), SessionExpired), (http(200, "text/html", b"x"), NoStream)],
)
async def test_where_there_is_no_own_stream_it_says_so(wire: Wire, answer: bytes, error: type[Exception]) -> None:
    wire.answers["GET"] = answer
    async with upstream(wire.url) as one, asyncio.timeout(10):
        link = await one.open(OURSELVES)
        async with aclosing(one.listen(link, None)) as heard:
            with pytest.raises(error):
                await anext(heard)


# --- the old transport ------------------------------------------------------------------------------------------------


class OldServer:
    """A server of 2024-11-05 that says on its stream what the test wants."""

    def __init__(self) -> None:
        self.endpoint = "/messages?session=1"
        self.status = 200
        self.posted: list[Any] = []
        self.stream: asyncio.StreamWriter | None = None
        self.answers: dict[str, list[bytes]] = {"initialize": [reply(0, HELLO)]}
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET"):
                    kind = "text/event-stream" if self.status == 200 else "text/plain"
                    writer.write(f"HTTP/1.1 {self.status} X\r\ncontent-type: {kind}\r\n\r\n".encode())
                    if self.status != 200:
                        return
                    self.stream = writer
                    writer.write(f"event: endpoint\ndata: {self.endpoint}\n\n".encode())
                    await reader.read()
                    return
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                message = json.loads(await reader.readexactly(length))
                self.posted.append(message)
                writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
                for said in self.answers.get(message.get("method"), []):
                    assert self.stream is not None
                    self.stream.write(event(said))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def old() -> AsyncIterator[OldServer]:
    old = OldServer()
    server = await asyncio.start_server(old.serve, "127.0.0.1", 0)
    old.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/sse"
    yield old
    server.close()


@asynccontextmanager
async def legacy(url: str) -> AsyncIterator[HttpSseUpstream]:
    client = Dialer(Vetting(Allowed(everything=True)), connect_seconds=5, via="us").client({"x-key": "v"})
    one = HttpSseUpstream("s", url, client, WireLimits(2, 10_000), "me")
    try:
        yield one
    finally:
        await one.close()


async def test_the_old_transport_calls_and_hears(old: OldServer) -> None:
    old.answers["tools/call"] = [PROGRESS, NOTE, reply(99, {}), b"not json at all", reply(1, {"ok": 1})]
    async with legacy(old.url) as one, asyncio.timeout(10):
        link = await one.open(OURSELVES)
        assert link.holder == "me"
        request = Request(1, "tools/call", {"name": "t", "_meta": {"progressToken": 1}})
        async with aclosing(messages_of(one, link, request)) as messages:
            found = [each async for each in messages]
        assert found[-1] == Reply(1, {"ok": 1}, b'{"ok": 1}')
        assert [each.method for each in found if isinstance(each, Notification)] == [
            "notifications/progress",
            "notifications/message",
        ]
        assert old.stream is not None
        old.stream.close()
        await until(lambda: not one._streams)
        async with aclosing(messages_of(one, link, request)) as messages:
            with pytest.raises(SessionExpired):
                await anext(messages)


@pytest.mark.parametrize("endpoint", ["http://elsewhere.test/messages", "//127.0.0.1:1/x", "ftp://127.0.0.1/"])
async def test_messages_are_posted_at_the_servers_own_origin_only(old: OldServer, endpoint: str) -> None:
    old.endpoint = endpoint
    async with legacy(old.url) as one, asyncio.timeout(10):
        with pytest.raises(UpstreamProtocolError, match="another origin"):
            await one.open(OURSELVES)
    assert old.posted == []


@pytest.mark.parametrize(("status", "error"), [(401, UpstreamRefused), (404, UpstreamProtocolError)])
async def test_a_server_without_a_stream_says_so(old: OldServer, status: int, error: type[UpstreamError]) -> None:
    old.status = status
    async with legacy(old.url) as one, asyncio.timeout(10):
        with pytest.raises(error):
            await one.open(OURSELVES)


async def test_a_server_that_never_answers_initialize_is_given_up(old: OldServer) -> None:
    old.answers.clear()
    async with legacy(old.url) as one, asyncio.timeout(10):
        with pytest.raises(UpstreamError, match="did not finish the handshake"):
            await one.open(OURSELVES)


async def test_what_belongs_to_no_call_is_nobodys_on_a_shared_session(old: OldServer) -> None:
    own = Hello("2024-11-05", {}, {"name": "c", "version": "1"})
    for hello, heard in ((OURSELVES, False), (own, True)):
        async with legacy(old.url) as one, asyncio.timeout(10):
            link = await one.open(hello)
            old.answers = {"initialize": [reply(0, HELLO)], "b": [NOTE, reply(2, {}), reply(1, {})]}

            async def ask(one: HttpSseUpstream, link: Any, request: Request) -> list[Any]:
                async with aclosing(messages_of(one, link, request)) as messages:
                    return [each async for each in messages]

            first = asyncio.create_task(ask(one, link, Request(1, "a", {})))
            await until(lambda: any(each.get("method") == "a" for each in old.posted))
            second = await ask(one, link, Request(2, "b", {}))
            notes = [each for each in [*await first, *second] if isinstance(each, Notification)]
            assert bool(notes) is heard
            old.posted.clear()
