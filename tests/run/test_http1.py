"""HTTP/1.1 under hypercorn on httptools: requests of every kind, well and badly framed, over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import AsyncMock, Mock

import hypercorn.protocol
import pytest
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, RawData
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError
from hypercorn.typing import ConnectionState
from hypothesis import given, settings
from hypothesis import strategies as some

from gateway.deadlines import Alarms
from gateway.edge.request import Http, Surroundings
from gateway.edge.response import send_bytes
from gateway.run import http1
from gateway.tasks import end
from tests.waiting import until

pytestmark = pytest.mark.anyio

App = Callable[[Any, Any, Any], Awaitable[None]]


class Recorder:
    """An application that answers with what it was asked, and keeps it."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.left = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        answer = scope["method"].encode() + b" " + scope["path"].encode() + b" " + body
        length = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": answer})


class Shortcut(Recorder):
    """The same on the shorter ways that our own requests have beside ASGI's: the body at hand, the answer at once."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = receive.__self__
        body = exchange.whole_body()
        if body is None:
            await super().__call__(scope, receive, send)
            return
        assert exchange.whole_body() is None
        self.scopes.append(scope)
        self.bodies.append(body)
        answer = scope["method"].encode() + b" " + scope["path"].encode() + b" " + body
        waiting = exchange.answer(200, [(b"content-length", str(len(answer)).encode())], answer)
        if waiting is not None:
            await waiting


APPS = pytest.mark.parametrize("made", [Recorder, Shortcut])


class Peer:
    """A client's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, is_head: bool = False) -> tuple[int, dict[str, str], bytes]:
        """The next answer, whole."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = b""
        if headers.get("transfer-encoding") == "chunked" and not is_head:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        elif "content-length" in headers and not is_head:
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, body

    async def rest(self) -> bytes:
        return await self.reader.read()


@contextmanager
def installed(max_connections: int = 1_000) -> Iterator[None]:
    assert http1.install("httptools", max_connections)
    try:
        yield
    finally:
        http1.install("h11")


@asynccontextmanager
async def serving(
    app: App, *, max_connections: int = 1_000, **config: Any
) -> AsyncIterator[Callable[[], Awaitable[Peer]]]:
    """A server with this application; calling what is yielded connects to it. The test has ten seconds."""
    loop, context, made = asyncio.get_running_loop(), WorkerContext(None), Config()
    for name, value in config.items():
        setattr(made, name, value)
    tasks: set[asyncio.Task[Any]] = set()
    peers: list[Peer] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: Any = asyncio.current_task()
        tasks.add(task)
        application: Any = ASGIWrapper(app)
        await TCPServer(application, loop, made, context, {}, reader, writer)

    async def connect() -> Peer:
        peers.append(Peer(*await asyncio.open_connection("127.0.0.1", port)))
        return peers[-1]

    with installed(max_connections):
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connect.context = context  # type: ignore[attr-defined]
        try:
            async with asyncio.timeout(10):
                yield connect
        finally:
            for peer in peers:
                peer.writer.close()
            await context.terminated.set()
            server.close()
            async with asyncio.timeout(10):
                await asyncio.gather(*tasks, return_exceptions=True)


POST = b"POST /a%20b?q=1 HTTP/1.1\r\nHost: x\r\nX-Key: v\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nhel\r\n2\r\nlo\r\n0\r\nT: r\r\n\r\n"
)


async def test_what_the_application_is_given() -> None:
    app = Recorder()
    async with serving(app) as connect:
        peer = await connect()
        peer.send(POST)
        status, headers, body = await peer.answer()
        assert (status, headers["server"], body) == (200, "hypercorn-h11", b"POST /a b hello")
        scope = app.scopes[0]
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("POST", "/a b", b"/a%20b")
    assert (scope["query_string"], scope["http_version"], scope["scheme"]) == (b"q=1", "1.1", "http")
    assert scope["headers"] == [(b"host", b"x"), (b"x-key", b"v"), (b"content-length", b"5")]
    assert scope["client"][0] == "127.0.0.1"
    assert scope["root_path"] == ""


@APPS
@pytest.mark.parametrize("request_", [POST, CHUNKED])
async def test_a_request_survives_a_cut_at_every_position(request_: bytes, made: type[Recorder]) -> None:
    app = made()
    async with serving(app) as connect:
        peer = await connect()
        for cut in range(1, len(request_)):
            peer.send(request_[:cut])
            await peer.writer.drain()
            await asyncio.sleep(0.001)
            peer.send(request_[cut:])
            assert (await peer.answer())[0] == 200
    assert set(app.bodies) == {b"hello"}


@APPS
async def test_requests_that_are_sent_ahead_are_answered_in_order(made: type[Recorder]) -> None:
    async with serving(made()) as connect:
        peer = await connect()
        peer.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(50)) + POST + CHUNKED)
        found = [(await peer.answer())[2] for _ in range(52)]
    assert found == [*(b"GET /%d " % number for number in range(50)), b"POST /a b hello", b"POST /c hello"]


BAD = {
    "no HTTP": (b"nonsense\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", 400),
    "a length and chunks": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks and a length": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a coding after chunked": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n", 400),
    "a coding before chunked": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked twice": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a signed length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\nhi", 400),
    "a length of nonsense": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2,2\r\n\r\nhi", 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "a folded header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
    "a blank before the colon": (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "a NUL in a header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 400),
    "another version": (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", (400, 505)),
    "a head of 100 KB": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 100_000 + b"\r\n\r\n", 431),
    "a head without an end": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 100_000, 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 300 + b"\r\n", 431),
    "a long target": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "a chunk's size of nonsense": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhi\r\n",
        400,
    ),
}


@pytest.mark.parametrize("what", BAD)
async def test_what_can_be_read_in_two_ways_is_refused_and_the_connection_closed(what: str) -> None:
    data, status = BAD[what]
    app = Recorder()
    async with serving(app, h11_max_incomplete_size=64 << 10) as connect:
        peer = await connect()
        peer.send(data + POST)  # which must not be taken for a request of its own
        found, headers, _ = await peer.answer()
        assert found in (status if isinstance(status, tuple) else (status,))
        assert headers["connection"] == "close"
        assert await peer.rest() == b""
        other = await connect()
        other.send(POST)
        assert (await other.answer())[0] == 200
    assert [scope["method"] for scope in app.scopes] == ["POST"]


async def test_what_comes_before_nonsense_is_answered_first() -> None:
    async with serving(Recorder()) as connect:
        peer = await connect()
        peer.send(POST + b"nonsense\r\n\r\n")
        assert (await peer.answer())[2] == b"POST /a b hello"
        assert (await peer.answer())[0] == 400
        assert await peer.rest() == b""


async def test_a_request_that_turns_out_to_be_bad_while_it_is_answered_gets_one_answer() -> None:
    answering = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"too late"})
        answering.set()

    async with serving(app) as connect:
        peer = await connect()
        peer.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        await asyncio.sleep(0.02)
        peer.send(b"nonsense\r\n")
        await answering.wait()
        whole = await peer.rest()
    assert whole.startswith(b"HTTP/1.1 400 ")
    assert whole.count(b"HTTP/1.1") == 1


@APPS
@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
    ],
)
async def test_a_connection_goes_on_if_both_sides_want_that(head: bytes, keeps: bool, made: type[Recorder]) -> None:
    async with serving(made(), keep_alive_max_requests=3) as connect:
        peer = await connect()
        peer.send(head)
        _, headers, _ = await peer.answer()
        assert (headers.get("connection") != "close") is keeps
        if keeps:
            for expected in (None, "close"):
                peer.send(head)
                assert (await peer.answer())[1].get("connection") == expected
        assert await peer.rest() == b""


async def test_the_answer_to_head_and_one_without_a_body_have_none() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204 if scope["path"] == "/none" else 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 100, "more_body": True})
        await send({"type": "http.response.body", "body": b"y"})

    async with serving(app) as connect:
        peer = await connect()
        peer.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, _ = await peer.answer(is_head=True)
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        peer.send(b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, body = await peer.answer()
        assert (status, body, "transfer-encoding" in headers) == (204, b"", False)
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await peer.answer())[2] == b"x" * 100 + b"y"


async def test_an_answer_at_once_is_framed_as_in_parts() -> None:
    answers = {
        "/none": (204, [], b"x"),
        "/chunked": (200, [], b"chunked"),
        "/large": (200, [(b"content-length", b"100000")], b"x" * 100_000),
        "/last": (200, [(b"content-length", b"1"), (b"connection", b"close")], b"x"),
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waiting = send.__self__.answer(*answers[scope["path"]])
        if waiting is not None:
            await waiting

    async with serving(app) as connect:
        peer = await connect()
        for path, (status, _, body) in answers.items():
            peer.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            found = await peer.answer()
            assert (found[0], found[2]) == (status, b"" if status == 204 else body)
        assert await peer.rest() == b""


async def test_parts_of_several_streams_are_written_together_and_in_order() -> None:
    """Parts that fall into one turn of the loop wait for its end; large ones, and a broken stream, lose none before."""
    waiting: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(40):
            part = b"%d;" % number if number % 7 else b"x" * 70_000 + b"%d;" % number
            await send({"type": "http.response.body", "body": part, "more_body": True})
            waiting.append(len(send.__self__._parts))
            if number % 3 == 0:
                await asyncio.sleep(0)
        if scope["path"] == "/broken":
            raise ValueError("a fault")
        await send({"type": "http.response.body", "body": b"end"})

    whole = b"".join((b"" if number % 7 else b"x" * 70_000) + b"%d;" % number for number in range(40))
    async with serving(app, errorlog=None) as connect:
        peers = [await connect() for _ in range(4)]
        for peer in peers:
            peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for answer in await asyncio.gather(*(peer.answer() for peer in peers)):
            assert answer[2] == whole + b"end"
        assert sum(map(bool, waiting)) > 20
        for peer in peers:
            peer.send(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
        for rest in await asyncio.gather(*(peer.rest() for peer in peers)):
            assert rest.count(b"HTTP/1.1") == 1
            assert rest.endswith(b"39;\r\n")


async def test_no_request_is_begun_while_the_client_does_not_read_the_answer_before() -> None:
    begun: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        body = b"x" * 60_000
        waiting = send.__self__.answer(200, [(b"content-length", str(len(body)).encode())], body)
        if waiting is not None:
            await waiting

    count = 900  # of a connection hypercorn takes a thousand
    async with serving(app) as connect:
        peer = await connect()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * count)
        seen = -1
        while seen != len(begun):
            seen = len(begun)
            await asyncio.sleep(0.3)
        assert 0 < seen < count // 2
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            assert len((await peer.answer())[2]) == 60_000
    assert len(begun) == count


async def test_a_refusal_comes_after_the_answers_that_wait_for_the_end_of_the_turn() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        send.__self__.answer(200, [(b"content-length", b"1")], b"x")

    async with serving(app) as connect:
        first, other = await connect(), await connect()
        for peer in (first, other):
            peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.05)
        first.send(b"nonsense\r\n\r\n")
        await asyncio.sleep(0.05)
        go.set()
        assert (await first.answer())[0] == 200
        assert (await first.answer())[0] == 400
        assert (await other.answer())[0] == 200


async def test_who_wraps_one_way_is_not_passed_by() -> None:
    """A host's middleware may wrap `send` alone: what it adds to answers is there."""
    around: list[Surroundings] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-mark", b"1")]
            await send(message)

        if not around:
            around.append(Surroundings(asyncio.Event()))
        http = Http(scope, receive, marked if scope["path"] == "/marked" else send, around[0])
        await send_bytes(http, 200, await http.read_body(100, 1.0))

    async with serving(app) as connect:
        peer = await connect()
        for path, mark in ((b"/marked", "1"), (b"/plain", None)):
            peer.send(POST.replace(b"/a%20b", path))
            _, headers, body = await peer.answer()
            assert (body, headers.get("x-mark")) == (b"hello", mark)


@pytest.mark.parametrize("logs", [False, True])
async def test_headers_of_a_stream_are_let_go_of_unless_they_are_logged(logs: bool) -> None:
    around: list[Surroundings] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not around:
            around.append(Surroundings(asyncio.Event()))
        http = Http(scope, receive, send, around[0])
        seen = http.headers.get(b"x-one")
        http.forget_headers()
        await send_bytes(http, 200, f"{seen} {len(scope['headers'])} {http.headers.get(b'x-one')}".encode())

    async with serving(app, accesslog="-" if logs else None) as connect:
        peer = await connect()
        for said in (b"1 2 1", b"2 2 2") if logs else (b"1 0 ", b"2 0 "):
            peer.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-One: %b\r\n\r\n" % said[:1])
            assert (await peer.answer())[2] == said


async def test_a_stream_is_seen_part_by_part_and_its_head_at_once() -> None:
    going_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-one", b"1")]})
        await going_on.wait()
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    async with serving(app) as connect:
        peer = await connect()
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert b"x-one: 1" in head
        going_on.set()
        assert await peer.reader.readuntil(b"0\r\n\r\n") == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_100_continue_is_sent_when_the_body_is_wanted_and_only_then() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/read":
            await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    head = b"POST %b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    async with serving(app) as connect:
        peer = await connect()
        peer.send(head % b"/read")
        assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
        peer.send(b"hello")
        assert (await peer.answer())[0] == 200
        peer.send(head % b"/refuse")
        assert (await peer.answer())[0] == 200
        assert await peer.rest() == b""  # the body was never read: nothing after it can be trusted


async def test_a_client_that_leaves_is_told_of() -> None:
    told = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    async with serving(app) as connect:
        peer = await connect()
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await peer.writer.drain()
        await asyncio.sleep(0.02)
        peer.writer.close()
        await told.wait()


async def test_a_body_that_nobody_reads_stops_the_client() -> None:
    reading = asyncio.Event()
    size = 64 << 20

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reading.wait()
        got, more = 0, True
        while more:
            message = await receive()
            got, more = got + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
        await send({"type": "http.response.body", "body": b"%d" % got})

    async with serving(app) as connect:
        peer = await connect()
        peer.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        sent = 0

        async def upload() -> None:
            nonlocal sent
            for _ in range(64):
                peer.send(b"x" * (1 << 20))
                await peer.writer.drain()
                sent += 1 << 20

        uploading = asyncio.create_task(upload())
        await asyncio.sleep(0.3)
        assert sent < size
        reading.set()
        await uploading
        assert (await peer.answer())[2] == b"%d" % size


FAILURES: dict[str, tuple[App, bytes]] = {}


def _fails(name: str, said: bytes) -> Callable[[App], App]:
    def keep(app: App) -> App:
        FAILURES[name] = app, said
        return app

    return keep


@_fails("an exception", b"HTTP/1.1 500 ")
async def _raises(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("a fault")


@_fails("no answer at all", b"HTTP/1.1 500 ")
async def _silent(scope: Any, receive: Any, send: Any) -> None:
    pass


@_fails("a head alone", b"HTTP/1.1 500 ")
async def _head_alone(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


@_fails("a line break in a header", b"HTTP/1.1 500 ")
async def _splits(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nc: d")]})


@_fails("half a line break in a header", b"HTTP/1.1 500 ")
async def _splits_by_half(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\nc: d")]})


@_fails("the other half in its name", b"HTTP/1.1 500 ")
async def _splits_its_name(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a\r", b"b")]})


@_fails("a NUL in a header", b"HTTP/1.1 500 ")
async def _nul(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"\0")]})


@_fails("less than it said", b"HTTP/1.1 200 ")
async def _short(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
    await send({"type": "http.response.body", "body": b"short"})


@_fails("more than it said", b"HTTP/1.1 500 ")
async def _long(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"too long"})


@_fails("less than it said, at once", b"HTTP/1.1 200 ")
async def _short_at_once(scope: Any, receive: Any, send: Any) -> None:
    send.__self__.answer(200, [(b"content-length", b"10")], b"short")


@_fails("more than it said, at once", b"HTTP/1.1 500 ")
async def _long_at_once(scope: Any, receive: Any, send: Any) -> None:
    send.__self__.answer(200, [(b"content-length", b"2")], b"too long")


@_fails("half a stream", b"HTTP/1.1 200 ")
async def _half(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ValueError("a fault")


@pytest.mark.parametrize("name", FAILURES)
async def test_half_an_answer_never_looks_whole(name: str, caplog: pytest.LogCaptureFixture) -> None:
    app, said = FAILURES[name]
    async with serving(app, errorlog=None) as connect:
        peer = await connect()
        peer.send(POST + POST)
        whole = await peer.rest()
    assert whole.startswith(said)
    assert whole.count(b"HTTP/1.1") == 1
    assert not whole.endswith(b"0\r\n\r\n")


async def test_idle_connections_are_closed_after_their_time_and_slow_heads_with_408(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http1, "_HEAD_SECONDS", 0.1)
    async with serving(Recorder(), keep_alive_timeout=0.1) as connect:
        peer, slow = await connect(), await connect()
        for each in (peer, slow):
            each.send(POST)
            await each.answer()
        slow.send(b"GET / HTT")
        assert await peer.rest() == b""
        assert (await slow.answer())[0] == 408
        assert await slow.rest() == b""


async def test_a_busy_connection_is_left_alone_however_long_it_takes() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.3)
        await Recorder()(scope, receive, send)

    async with serving(app, keep_alive_timeout=0.05) as connect:
        peer = await connect()
        peer.send(POST)
        assert (await peer.answer())[0] == 200


async def test_at_the_end_idle_connections_close_and_busy_ones_finish() -> None:
    going_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await going_on.wait()
        await Recorder()(scope, receive, send)

    async with serving(app) as connect:
        idle, busy = await connect(), await connect()
        idle.send(POST)
        await idle.answer()
        busy.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await busy.writer.drain()
        await asyncio.sleep(0.02)
        await connect.context.terminated.set()  # type: ignore[attr-defined]
        assert await idle.rest() == b""
        going_on.set()
        status, headers, _ = await busy.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await busy.rest() == b""


async def test_the_absolute_form_of_a_target_leads_to_its_path() -> None:
    app = Recorder()
    async with serving(app) as connect:
        peer = await connect()
        peer.send(b"GET http://x/a/b?c HTTP/1.1\r\nHost: x\r\n\r\n")
        await peer.answer()
    assert (app.scopes[0]["path"], app.scopes[0]["query_string"]) == ("/a/b", b"c")


async def test_an_upgrade_to_what_nobody_speaks_is_an_ordinary_request() -> None:
    async with serving(Recorder()) as connect:
        peer = await connect()
        peer.send(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: ssh\r\n\r\n" + POST)
        assert (await peer.answer())[2] == b"GET /a "
        assert (await peer.answer())[2] == b"POST /a b hello"


async def test_an_upgrade_on_a_connection_that_was_used_is_left_to_hypercorn() -> None:
    async with serving(Recorder()) as connect:
        peer = await connect()
        for _ in range(3):
            peer.send(POST)
            assert (await peer.answer())[0] == 200
        peer.send(
            b"GET /d HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n"
        )
        status, headers, _ = await peer.answer()
        assert (status, headers["upgrade"]) == (101, "h2c")
        peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        assert b"GET /d " in await peer.reader.readuntil(b"GET /d ")


async def test_a_request_is_answered_while_the_application_still_works_on_the_last_one() -> None:
    working, leave = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
        if scope["path"] == "/works-on":
            working.set()
            await leave.wait()

    async with serving(app) as connect:
        peer = await connect()
        for target in (b"/works-on", b"/a", b"/works-on", b"/b", b"/c"):
            peer.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
            assert (await peer.answer())[0] == 200
        assert working.is_set()
        leave.set()
        peer.send(b"GET /d HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await peer.answer())[0] == 200


async def test_a_slow_head_gets_no_more_time_with_each_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "_HEAD_SECONDS", 0.2)
    async with serving(Recorder(), keep_alive_timeout=5) as connect:
        peer = await connect()
        peer.send(POST)
        assert (await peer.answer())[0] == 200

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100:
                peer.send(bytes([byte]))
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert (await peer.answer())[0] == 408
        await end([dripping])


async def test_an_unknown_hypercorn_keeps_its_own_protocol(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http1, "KNOWN_VERSIONS", frozenset())
    assert not http1.install("httptools")
    assert hypercorn.protocol.H11Protocol is http1.StockProtocol  # type: ignore[attr-defined]
    assert "is not known" in caplog.text


# --- what hypercorn's own tests of its class (tests/protocol/test_h11.py) ask, where they test behaviour --------------


def alone(app: Any = None, **config: Any) -> tuple[http1.Http1Protocol, list[Any]]:
    """A protocol without a connection, and what it sends."""
    made = Config()
    for name, value in config.items():
        setattr(made, name, value)
    context = Mock(max_requests=None)
    context.terminated.is_set.return_value = False
    context.terminated.wait = AsyncMock()
    sent: list[Any] = []
    tasks = Mock()
    tasks.spawn.side_effect = lambda work, *arguments: None

    async def send(event: Any) -> None:
        sent.append(event)

    with installed():
        kind: Any = hypercorn.protocol.H11Protocol  # type: ignore[attr-defined]
    kind.shared.alarms = Alarms()
    wrapped = AsyncMock() if app is None else ASGIWrapper(app)
    return kind(wrapped, made, context, tasks, ConnectionState({}), False, None, None, send), sent


async def test_a_head_that_waits_is_not_written_after_a_refusal() -> None:
    """The application has begun its answer when the rest of the request turns out to be nonsense."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-secret", b"1")]})
        await receive()

    async with serving(app) as connect:
        peer = await connect()
        peer.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nZZ\r\n")
        data = await peer.reader.read()
    assert data.startswith(b"HTTP/1.1 400")
    assert b"x-secret" not in data


async def test_nonsense_is_400_and_then_the_end() -> None:
    protocol, sent = alone()
    await protocol.handle(RawData(b"broken nonsense\r\n\r\n"))
    assert sent[0].data.startswith(b"HTTP/1.1 400 ")
    await protocol.handle(RawData(POST))
    await protocol.handle(RawData(b"x" * (5 << 20)))  # it reads on for a while, and takes nothing of it
    assert sent[1:] == [Closed()]


async def test_what_is_incomplete_and_too_large_is_431() -> None:
    protocol, sent = alone(h11_max_incomplete_size=5)
    await protocol.handle(RawData(b"GET / HTTP/1.1\r\nHost: hypercorn\r\n"))
    await protocol.handle(RawData(b"A: bcdef"))  # the read in which the head began does not count
    assert sent[0].data.startswith(b"HTTP/1.1 431 ")


async def test_h2c_is_left_to_hypercorn_with_all_its_bytes() -> None:
    protocol, sent = alone()
    with pytest.raises(H2CProtocolRequiredError) as upgrade:
        await protocol.handle(
            RawData(b"GET / HTTP/1.1\r\nHost: hypercorn\r\nupgrade: h2c\r\nhttp2-settings: abcd\r\n\r\nbbb")
        )
    assert (upgrade.value.data, upgrade.value.settings) == (b"bbb", b"abcd")
    assert sent[1].data.startswith(b"HTTP/1.1 101 ")


async def test_an_upgrade_with_a_large_head_is_handed_over_whole_and_what_came_before_it_is_not() -> None:
    large = b"A: " + b"b" * 12_000 + b"\r\n"
    head = b"GET / HTTP/1.1\r\nHost: hypercorn\r\nupgrade: h2c\r\nhttp2-settings: abcd\r\n"
    protocol, _ = alone()
    with pytest.raises(H2CProtocolRequiredError) as upgrade:
        await protocol.handle(RawData(head + large + b"\r\nbbb"))
    assert upgrade.value.data == b"bbb"
    app = Recorder()
    async with serving(app) as connect:
        peer = await connect()
        peer.send(b"POST /once HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + b"x" * 9000 + head + b"\r\n")
        assert (await peer.answer())[2].startswith(b"POST /once xxx")
        await until(lambda: len(app.scopes) == 2)
    assert [scope["method"] for scope in app.scopes] == ["POST", "GET"]


async def test_requests_that_are_sent_ahead_take_little_while_they_wait() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    protocol, _ = alone(app=app)
    running: list[asyncio.Task[None]] = []
    protocol.task_group = Mock(spawn=lambda work, *arguments: running.append(asyncio.create_task(work(*arguments))))
    reading = asyncio.create_task(protocol.handle(RawData(b"GET / HTTP/1.1\r\nHost:x\r\n\r\n" * 2600)))
    await asyncio.sleep(0.01)
    assert not reading.done()
    assert 0 < len(protocol._line) < 400
    await end([reading, *running])


@pytest.mark.parametrize("cut", [1, 3, 14, 20])
async def test_http_2_without_asking_is_left_to_hypercorn(cut: int) -> None:
    data = b"PRI * HTTP/2.0\r\n\r\nbbb"
    protocol, _ = alone()

    async def handle() -> None:
        for part in (data[:cut], data[cut:]):
            await protocol.handle(RawData(part))

    with pytest.raises(H2ProtocolAssumedError) as assumed:
        await handle()
    assert assumed.value.data.startswith(b"PRI * HTTP/2.0\r\n\r\n")


async def test_raw_headers_keep_their_case_where_hypercorn_is_told_so() -> None:
    app = Recorder()
    async with serving(app, h11_pass_raw_headers=True) as connect:
        peer = await connect()
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\nFOO_BAR: foobar\r\n\r\n")
        await peer.answer()
    assert app.scopes[0]["headers"] == [(b"Host", b"x"), (b"FOO_BAR", b"foobar")]


async def test_an_access_log_has_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    lines: list[str] = []
    logger = logging.getLogger("an access log")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.Handler())
    logger.handlers[0].emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    async with serving(Recorder(), accesslog=logger) as connect:
        peer = await connect()
        peer.send(POST)
        await peer.answer()
        await until(lambda: bool(lines))
    assert "POST /a b" in lines[0]
    assert " 200 " in lines[0]


PIECES = [POST, CHUNKED, *(data for data, _ in BAD.values() if len(data) < 2000), b"\r\n", b"0\r\n\r\n", b"PRI * HT"]


@settings(max_examples=200, deadline=None)
@given(some.lists(some.sampled_from(PIECES) | some.binary(max_size=40), max_size=4), some.integers(1, 2000))
def test_whatever_a_client_sends_is_answered_or_refused_and_the_server_is_unharmed(
    parts: list[bytes], step: int
) -> None:
    asyncio.run(fed(b"".join(parts), step))


async def fed(data: bytes, step: int) -> None:
    """Feed bytes as hypercorn does, and then the end."""
    app = Recorder()
    protocol, sent = alone(app=app)
    running: list[asyncio.Task[None]] = []

    def spawn(work: Any, *arguments: Any) -> None:
        running.append(asyncio.create_task(work(*arguments)))

    protocol.task_group = Mock(spawn=spawn)

    async def feed() -> None:
        try:
            for at in range(0, len(data), step):
                if Closed() in sent:
                    break
                await protocol.handle(RawData(data[at : at + step]))
        except H2ProtocolAssumedError:
            pass
        await protocol.handle(Closed())

    async with asyncio.timeout(5):
        await feed()
        while running:
            await running.pop()
    protocol.shared.alarms.discard(protocol)
    answers = b"".join(each.data for each in sent if isinstance(each, RawData))
    assert answers == b"" or answers.startswith(b"HTTP/1.1 ")
    assert all(body in (b"", b"hello") for body in app.bodies)
    assert not protocol.shared.open


# --- how many, and how long -----------------------------------------------------------------------------------------


async def test_a_connection_without_a_request_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "_HEAD_SECONDS", 0.2)
    async with serving(Recorder(), keep_alive_timeout=60) as connect:
        silent, slow, used = await connect(), await connect(), await connect()
        slow.send(POST[:20])
        used.send(POST)
        assert (await used.answer())[0] == 200
        assert await silent.rest() == b""
        assert (await slow.rest()).startswith(b"HTTP/1.1 408 ")
        used.send(POST)  # idle after an answer is another matter
        assert (await used.answer())[0] == 200


async def test_of_too_many_connections_an_idle_one_makes_room() -> None:
    async with serving(Recorder(), max_connections=2) as connect:
        first, second = await connect(), await connect()
        for each in (first, second):
            each.send(POST)
            assert (await each.answer())[0] == 200
        third = await connect()
        third.send(POST)
        assert (await third.answer())[0] == 200
        assert await first.rest() == b""
        second.send(POST)
        assert (await second.answer())[0] == 200


async def test_of_too_many_connections_in_use_the_new_one_is_closed() -> None:
    holding = asyncio.Event()

    async def hold(scope: Any, receive: Any, send: Any) -> None:
        await holding.wait()
        await Recorder()(scope, receive, send)

    async with serving(hold, max_connections=1) as connect:
        first = await connect()
        first.send(POST)
        await asyncio.sleep(0.1)
        second = await connect()
        assert await second.rest() == b""
        holding.set()
        assert (await first.answer())[0] == 200
