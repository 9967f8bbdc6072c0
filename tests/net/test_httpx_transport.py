"""httpx over the gateway's own connections."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from gateway.net.connections import Dial
from gateway.net.http_client import HttpClient
from gateway.net.httpx_transport import Http1Transport

pytestmark = pytest.mark.anyio


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the request, as it came; `/slow` never does."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = b""
            if b"chunked" in head:
                while not body.endswith(b"0\r\n\r\n"):
                    body += await reader.read(65536)
            else:
                length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].partition(b":")[2])) if length else b""
            if b"/slow" in head:
                await reader.read()
            text = head + body
            writer.write(b"HTTP/1.1 200 OK\r\nx-one: 1\r\nx-one: 2\r\ncontent-length: %d\r\n\r\n" % len(text))
            writer.write(b"" if head.startswith(b"HEAD") else text)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def dial(url: httpx.URL) -> Dial:
        async def connect(protocol: Callable[[], asyncio.Protocol]) -> None:
            await asyncio.get_running_loop().create_connection(protocol, "127.0.0.1", port)

        return connect

    transport = Http1Transport(HttpClient(dial, {}, 4, 5.0))
    async with httpx.AsyncClient(transport=transport, base_url="http://x.test") as client, asyncio.timeout(10):
        yield client
    server.close()


async def test_a_request_with_a_body_and_its_headers(client: httpx.AsyncClient) -> None:
    answer = await client.post("/a?b=c", content=b"hello", headers={"x-key": "v"})
    assert answer.text.startswith("POST /a?b=c HTTP/1.1\r\n")
    assert "x-key: v\r\n" in answer.text
    assert answer.text.endswith("\r\n\r\nhello")
    assert answer.headers.get_list("x-one") == ["1", "2"]


async def test_a_body_without_a_length_goes_in_chunks(client: httpx.AsyncClient) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"hel"
        yield b""
        yield b"lo"

    answer = await client.post("/", content=parts())
    assert answer.text.endswith("3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")


async def test_an_answer_is_streamed_and_head_has_none(client: httpx.AsyncClient) -> None:
    async with client.stream("GET", "/") as answer:
        assert b"".join([part async for part in answer.aiter_raw()]).startswith(b"GET / ")
    answer = await client.head("/")
    assert (answer.content, int(answer.headers["content-length"]) > 0) == (b"", True)


async def test_a_read_timeout_is_httpx_own(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await client.get("/slow", timeout=0.05)
    assert (await client.get("/")).status_code == 200


async def test_a_line_break_in_a_header_is_refused(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        await client.get("/", headers={"x": "a\r\nb: c"})
