"""Answers over HTTP/1.1: framed well and badly, cut anywhere, and what becomes of their connections."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from gateway.net.connections import Connections
from gateway.net.http1_client import Response
from tests.net.http1_server import answering, connections_to
from tests.waiting import until

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n3;x=y\r\n yo\r\n0\r\ntrailer: t\r\n\r\n"
UNTIL_END = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhi"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n" + OK


async def ask(connections: Connections) -> tuple[int, bytes | None]:
    response = await connections.send(GET)
    return response.status, await response.read(1 << 20)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"hi"),
        (CHUNKED, b"hi yo"),
        (INTERIM, b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", b""),
    ],
)
async def test_a_whole_answer_is_read_and_its_connection_serves_on(answer: bytes, body: bytes) -> None:
    taken = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken += 1
        await answering(answer)(reader, writer)

    async with connections_to(handle) as connections:
        for _ in range(3):
            assert (await ask(connections))[1] == body
        assert (taken, connections.busy) == (1, 0)


@pytest.mark.parametrize("answer", [OK, CHUNKED, INTERIM])
async def test_an_answer_survives_a_cut_at_every_position(answer: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for cut in range(1, len(answer)):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer[:cut])
            await asyncio.sleep(0.001)
            writer.write(answer[cut:])

    async with connections_to(handle) as connections:
        for _ in range(1, len(answer)):
            assert (await ask(connections))[0] == 200


async def test_headers_are_found_by_their_name_in_lower_case() -> None:
    async with connections_to(answering(OK)) as connections:
        response = await connections.send(GET)
        assert response.header(b"content-type") == "text/plain"
        assert response.header(b"link") == ""


async def test_an_answer_until_the_end_of_the_connection_is_whole_when_that_comes() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(UNTIL_END)

    async with connections_to(handle) as connections:
        assert await ask(connections) == (200, b"hi")
        assert await ask(connections) == (200, b"hi")


MALFORMED = {
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi!",
    "the same length twice": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi",
    "a length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhi",
    "chunked is not the last": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked is not the only": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nhi",
    "a length of nonsense": b"HTTP/1.1 200 OK\r\ncontent-length: 2,2\r\n\r\nhi",
    "a length beyond 64 bits": b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nhi",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi",
    "a folded header": b"HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 2\r\n\r\nhi",
    "a blank before the colon": b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nhi",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\na: b\0c\r\ncontent-length: 2\r\n\r\nhi",
    "a longer chunk than it says": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi!\r\n0\r\n\r\n",
    "a chunk's size of nonsense": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300 + b"content-length: 2\r\n\r\nhi",
    "large headers": b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000 + b"\r\ncontent-length: 2\r\n\r\nhi",
    "a header without an end": b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000,
    "large trailers": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    "nothing but interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40,
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_what_is_framed_badly_is_an_error_and_ends_the_connection(what: str) -> None:
    closed = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(MALFORMED[what])
        try:
            assert await reader.read() == b""
        finally:
            closed.set()

    async with connections_to(handle) as connections:
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(connections)
        await closed.wait()
        assert connections.busy == 0


@pytest.mark.parametrize("sent", [OK[:0], OK[:5], OK[:30], OK[:-1], CHUNKED[:-8]])
async def test_a_server_that_closes_in_the_middle_is_said_and_nothing_is_sent_twice(sent: bytes) -> None:
    requests = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        writer.write(sent)

    async with connections_to(handle) as connections:
        with pytest.raises(httpx.RemoteProtocolError, match="closed the connection"):
            await ask(connections)
        assert requests == 1


async def test_what_follows_an_answer_is_never_taken_for_the_next_one() -> None:
    forged = OK.replace(b"hi", b"no")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + forged)
        await reader.read()

    async with connections_to(handle) as connections:
        for _ in range(5):
            assert await ask(connections) == (200, b"hi")


async def test_what_arrives_late_closes_the_idle_connection() -> None:
    taken: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        await answering(OK)(reader, writer)

    async with connections_to(handle) as connections:
        await ask(connections)
        taken[0].write(OK.replace(b"hi", b"no"))
        await until(lambda: taken[0].transport.is_closing())
        assert await ask(connections) == (200, b"hi")
        assert len(taken) == 2


async def test_a_connection_that_its_server_closed_is_not_used_even_if_nobody_has_noticed_yet() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with connections_to(handle) as connections:
        await ask(connections)
        [idle] = connections._idle
        idle._transport.pause_reading()  # so that this loop does not hear of the end
        await asyncio.sleep(0.1)
        assert not idle._transport.is_closing()
        assert await ask(connections) == (200, b"hi")


async def test_an_idle_connection_is_closed_after_a_while() -> None:
    ended = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answering(OK)(reader, writer)
        finally:
            ended.set()

    async with connections_to(handle, keepalive_seconds=0.05) as connections:
        await ask(connections)
        await ended.wait()
        assert not connections._all


async def test_a_slow_reader_stops_the_server() -> None:
    size, sent = 16 << 20, 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
        await reader.read()

    async with connections_to(handle) as connections:
        response = await connections.send(GET)
        before = -1
        while before != sent:  # until it stands still
            before = sent
            await asyncio.sleep(0.1)
        assert sent < size // 2
        assert response.size < 2 << 20
        body = await response.read(size)
        assert body is not None
        assert len(body) == size


async def test_a_body_beyond_its_bound_is_given_up() -> None:
    async with connections_to(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")) as connections:
        response = await connections.send(GET)
        assert await response.read(4) is None


async def test_a_caller_that_leaves_closes_its_connection_and_another_goes_on() -> None:
    closed = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not closed.is_set():
            try:
                await reader.read()
            finally:
                closed.set()
        writer.write(OK)

    async with connections_to(handle) as connections:
        leaving = asyncio.create_task(ask(connections))
        await until(lambda: connections.busy == 1)
        leaving.cancel()
        await closed.wait()
        assert connections.busy == 0
        assert await ask(connections) == (200, b"hi")


async def test_who_finds_no_free_connection_waits_in_line_and_not_for_ever() -> None:
    release = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await release.wait()
            writer.write(OK)

    async with connections_to(handle, limit=2, wait_seconds=0.2) as connections:
        first = [asyncio.create_task(ask(connections)) for _ in range(2)]
        await until(lambda: connections.busy == 2)
        with pytest.raises(httpx.PoolTimeout):
            await ask(connections)
        waiting = [asyncio.create_task(ask(connections)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        release.set()
        assert [await each for each in [*first, *waiting[1:]]] == [(200, b"hi")] * 4
        assert len(connections._all) == 2


async def test_a_place_in_line_is_passed_on_when_a_connection_ends() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(UNTIL_END)

    async with connections_to(handle, limit=1) as connections:
        assert await asyncio.gather(*(ask(connections) for _ in range(5))) == [(200, b"hi")] * 5


async def test_a_connect_that_fails_leaves_room_for_the_next() -> None:
    async def refused(protocol: Callable[[], asyncio.Protocol]) -> None:
        await asyncio.sleep(0)
        raise httpx.ConnectError("refused")

    connections = Connections(refused, limit=1, keepalive_seconds=1, wait_seconds=1)
    async with asyncio.timeout(5):
        found = await asyncio.gather(*(connections.send(GET) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [httpx.ConnectError] * 3


async def test_closing_ends_what_is_under_way() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with connections_to(handle, limit=1) as connections:
        working = [asyncio.create_task(ask(connections)) for _ in range(2)]
        await until(lambda: connections.busy == 1)
        connections.close()
        for each in working:
            with pytest.raises(httpx.TransportError, match="closed"):
                await each
        with pytest.raises(httpx.ConnectError):
            await ask(connections)


async def test_an_answer_before_the_request_was_whole_stands_and_its_connection_ends() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await reader.read()

    async with connections_to(handle) as connections:
        connection = await connections.take()
        response = connection.begin(b"POST / HTTP/1.1\r\ncontent-length: 99\r\n\r\n", has_more=True)
        await response.head()
        assert not await connection.write(b"x" * 99)
        assert (response.status, await response.read(9)) == (413, b"no")
        assert not connections._all


async def test_a_body_in_parts_waits_while_the_server_does_not_read() -> None:
    reading = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reading.wait()
        await reader.readexactly(64 << 20)
        writer.write(OK)
        await reader.read()

    async with connections_to(handle) as connections:
        connection = await connections.take()
        response = connection.begin(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (64 << 20), has_more=True)
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(64):
                await connection.write(b"x" * (1 << 20))
                sent += 1
            connection.sent()

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.2)
        assert sent < 60
        reading.set()
        await sending
        await response.head()
        assert await response.read(9) == b"hi"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"])
async def test_the_answer_to_head_has_no_body(answer: bytes) -> None:
    async with connections_to(answering(answer)) as connections:
        response = (await connections.take()).begin(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n", bodiless=True)
        await response.head()
        assert (response.header(b"content-length"), await response.read(9)) == ("500", b"")


async def dialed(limit: int = 8) -> tuple[Connections, list["_Transport"]]:
    """Connections over transports that remember what was written."""
    transports: list[_Transport] = []

    async def dial(protocol: Callable[[], asyncio.Protocol]) -> None:
        transports.append(_Transport())
        protocol().connection_made(transports[-1])

    return Connections(dial, limit=limit, keepalive_seconds=1, wait_seconds=1), transports


async def test_whole_requests_are_written_together_at_the_end_of_the_turn() -> None:
    """Of one alone nothing would be gained by waiting."""
    connections, transports = await dialed()
    (await connections.take()).begin(GET)
    assert [each.written for each in transports] == [GET]
    taken = [await connections.take() for _ in range(7)]
    responses = [connection.begin(GET) for connection in taken]
    responses[1].close()  # whose caller has left in the same turn
    assert [each.written for each in transports] == [GET, *[b""] * 7]
    await asyncio.sleep(0)
    assert [each.written for each in transports] == [GET, GET, b"", *[GET] * 5]
    connections.close()


async def test_a_write_that_fails_keeps_no_other_from_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    connections, transports = await dialed()
    taken = [await connections.take() for _ in range(8)]
    responses = [connection.begin(GET) for connection in taken]

    def closed(data: object) -> None:
        raise RuntimeError("the handler is closed")

    monkeypatch.setattr(transports[0], "write", closed)
    await asyncio.sleep(0)
    assert [each.written for each in transports] == [b"", *[GET] * 7]
    with pytest.raises(httpx.WriteError):
        await responses[0].head()
    connections.close()


@pytest.mark.parametrize("ends", [False, True])
async def test_what_comes_before_the_request_was_written_is_no_answer(ends: bool) -> None:
    """The server answers what nobody asked, or closes an idle connection, in the turn in which it is taken."""
    connections, transports = await dialed()
    taken = [await connections.take() for _ in range(8)]
    connection = taken[0]
    response = connection.begin(GET)
    if ends:  # uvloop closes at once, and tells of it after what was to be called by then
        transports[0].close()
        await asyncio.sleep(0)
        connection.connection_lost(None)
    else:
        connection.data_received(OK)
    with pytest.raises(httpx.ConnectError, match="before the request was sent"):
        await response.head()
    await asyncio.sleep(0)
    assert (transports[0].written, transports[0].is_closing(), connections.busy) == (b"", True, 7)
    connections.close()


PIECES = [OK, CHUNKED, UNTIL_END, INTERIM, *MALFORMED.values(), b"\r\n", b"0\r\n\r\n", b"HTTP/1.1 ", b"\x00\xff"]


@settings(max_examples=300, deadline=None)
@given(some.lists(some.sampled_from(PIECES) | some.binary(max_size=40), max_size=4), some.integers(1, 2000))
def test_whatever_a_server_sends_is_an_answer_or_an_error_and_leaves_nothing_behind(
    parts: list[bytes], step: int
) -> None:
    asyncio.run(fed(b"".join(parts), step))


async def fed(data: bytes, step: int) -> None:
    """Feed bytes to a connection as its transport would, and then the end."""
    transport = _Transport()

    async def dial(protocol: Callable[[], asyncio.Protocol]) -> None:
        protocol().connection_made(transport)

    connections = Connections(dial, limit=1, keepalive_seconds=1, wait_seconds=1)
    connection = await connections.take()
    response = connection.begin(GET)
    await asyncio.sleep(0)  # in which the request is written
    for at in range(0, len(data), step):
        if transport.is_closing():
            break
        connection.data_received(data[at : at + step])
    connection.connection_lost(None)
    await _ended(response)
    assert (connections.busy, len(connections._all)) == (0, 0)
    connections.close()


async def _ended(response: Response) -> None:
    try:
        async with asyncio.timeout(1):
            await response.head()
            await response.read(1 << 20)
    except httpx.RemoteProtocolError:
        pass


class _Transport(asyncio.Transport):
    """Takes everything, and remembers that it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = False
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading
