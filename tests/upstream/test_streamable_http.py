"""Upstreams over the bytes of the wire: what a server may send, well and badly."""

import asyncio
import ssl
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.errors import (
    OutcomeUnknown,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.model.server import ServerSpec
from gateway.protocol.messages import Failure, Notification, Reply
from gateway.upstream.contract import SessionExpired, StreamOpened, UpstreamSession
from gateway.upstream.link import OURSELVES, CallLimits, ServerLink
from tests.calls import messages_of
from tests.wire import CALL, CUT, HELLO, PROGRESS, Wire, event, http, reply, upstream

pytestmark = pytest.mark.anyio


async def talk(wire: Wire, answer: bytes | None, **limits: Any) -> list[object]:
    """Shake hands, send a call that is answered with these bytes, and collect what comes until the answer."""
    wire.answers["tools/call"] = answer
    async with upstream(wire.url, **limits) as one, asyncio.timeout(10):
        link = await one.open(OURSELVES)
        found: list[object] = []
        async for message in messages_of(one, link, CALL):
            found.append(message)
            if isinstance(message, Reply | Failure):
                return found
    raise AssertionError("send ended without raising")


async def test_the_handshake_is_made_and_repeated_in_headers(wire: Wire) -> None:
    assert await talk(wire, http(200, "application/json", reply(1, {"ok": 1}))) == [
        Reply(1, {"ok": 1}, b'{"ok": 1}')
    ]  # fmt: skip
    methods = [message.get("method") for _, _, message in wire.seen]
    assert methods == ["initialize", "notifications/initialized", "tools/call"]
    _, headers, _ = wire.seen[-1]
    assert headers["mcp-session-id"] == "s1"
    assert headers["mcp-protocol-version"] == "2025-06-18"
    assert headers["x-key"] == "v"
    assert headers["via"] == "1.1 us"
    assert "authorization" not in headers
    assert headers["accept"] == "application/json, text/event-stream"


async def test_an_event_stream_is_told_as_it_comes(wire: Wire) -> None:
    body = b": hi\n\nid: 1\ndata:\n\n" + event(PROGRESS) + event(reply(1, {"ok": 1}))
    found = await talk(wire, http(200, "text/event-stream; charset=utf-8", body, length=False))
    assert found[0] == StreamOpened()
    assert isinstance(found[1], Notification)
    assert isinstance(found[2], Reply)


async def test_a_json_rpc_error_in_an_http_error_is_the_answer(wire: Wire) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"bad"}}'
    assert (await talk(wire, http(400, "application/json", body)))[-1] == Failure(1, -32602, "bad")


NOT_MCP: list[tuple[bytes | None, type[UpstreamError]]] = [
    (http(200, "text/html", b"<html>"), UpstreamProtocolError),
    (http(200, "application/json", b'{"jsonrpc":"2.0","id":1,"res'), UpstreamProtocolError),
    (http(200, "application/json", b""), UpstreamProtocolError),
    (http(200, "application/json", reply(1, 123456789012345678901234)), UpstreamProtocolError),
    (http(200, "", b"x"), UpstreamProtocolError),
    (http(204, "", b""), UpstreamProtocolError),
    (http(202, "", b""), UpstreamProtocolError),
    (http(302, "", b"", "location: http://elsewhere/\r\n"), UpstreamProtocolError),
    (http(429, "", b"", "retry-after: 7\r\n"), UpstreamProtocolError),
    (http(500, "text/plain", b"oops"), UpstreamProtocolError),
    (http(401, "", b"", "www-authenticate: Bearer\r\n"), UpstreamRefused),
    (http(403, "", b""), UpstreamRefused),
    (http(200, "application/json", b"x" * 2000), UpstreamProtocolError),
    (http(200, "text/event-stream", b"data: " + b"x" * 2000, length=False), UpstreamProtocolError),
    (http(200, "text/event-stream", b"data: nonsense\n\n", length=False), UpstreamProtocolError),
    (http(200, "text/event-stream", event(PROGRESS), length=False), OutcomeUnknown),
    (http(200, "text/event-stream", b"", length=False), OutcomeUnknown),
    (CUT, OutcomeUnknown),
    (b"nonsense\r\n\r\n", OutcomeUnknown),
    (None, OutcomeUnknown),
    (http(200, "application/json", b"x", "content-encoding: gzip\r\n"), UpstreamProtocolError),
    (http(429, "", b"", "retry-after: \xb2\r\n"), UpstreamProtocolError),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "expected"), NOT_MCP)
async def test_what_is_not_mcp_is_a_named_error(
    wire: Wire, answer: bytes | None, expected: type[UpstreamError]
) -> None:
    with pytest.raises(expected) as refusal:
        await talk(wire, answer, max_result=1000)
    assert refusal.value.server == "s"
    assert "'s'" in refusal.value.detail


async def test_how_long_to_wait_is_passed_on(wire: Wire) -> None:
    with pytest.raises(UpstreamProtocolError) as refusal:
        await talk(wire, http(429, "", b"", "retry-after: 7\r\n"))
    assert refusal.value.facts["retry_after"] == 7


async def test_a_400_that_does_not_speak_of_sessions_is_not_repeated(wire: Wire) -> None:
    with pytest.raises(UpstreamProtocolError, match="HTTP 400"):
        await talk(wire, http(400, "text/plain", b"bad arguments"))
    assert [message.get("method") for _, _, message in wire.seen].count("tools/call") == 1


async def test_a_stream_that_ended_with_the_answer_leaves_its_connection_usable(wire: Wire) -> None:
    body = event(reply(1, {}))
    chunked = b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    wire.answers["tools/call"] = chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    async with upstream(wire.url) as one, asyncio.timeout(10):
        link = await one.open(OURSELVES)
        for _ in range(10):
            async with aclosing(messages_of(one, link, CALL)) as messages:
                async for message in messages:
                    if isinstance(message, Reply):
                        break
            await asyncio.sleep(0)
            await asyncio.gather(*one._draining)
    assert wire.connections <= 2


async def test_cookies_are_not_kept(wire: Wire) -> None:
    wire.answers["tools/call"] = http(200, "application/json", reply(1, {}), "set-cookie: a=b\r\n")
    async with upstream(wire.url) as one:
        link = await one.open(OURSELVES)
        for _ in range(2):
            async for message in messages_of(one, link, CALL):
                if isinstance(message, Reply):
                    break
    assert "cookie" not in wire.seen[-1][1]


@pytest.mark.parametrize("status", [404, 400])
async def test_a_forgotten_session_is_told_apart(wire: Wire, status: int) -> None:
    body = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session"}}'
    with pytest.raises(SessionExpired):
        await talk(wire, http(status, "application/json", body))


async def test_nobody_there_is_unreachable_with_the_systems_words(unused_port: int) -> None:
    async with upstream(f"http://127.0.0.1:{unused_port}/mcp") as one:
        with pytest.raises(UpstreamUnreachable) as refusal:
            await one.open(OURSELVES)
    assert "refused" in refusal.value.detail


async def test_a_silent_server_does_not_hold_the_handshake(wire: Wire) -> None:
    wire.answers["initialize"] = b" "
    async with upstream(wire.url, handshake_seconds=0.2) as one:
        with pytest.raises((UpstreamTimeout, OutcomeUnknown)):
            await one.open(OURSELVES)


@pytest.mark.parametrize("result", [{}, {"protocolVersion": "1999-01-01", "capabilities": {}}])
async def test_a_handshake_that_leads_nowhere_says_why(wire: Wire, result: Any) -> None:
    wire.answers["initialize"] = http(200, "application/json", reply(0, result))
    async with upstream(wire.url) as one:
        with pytest.raises(UpstreamProtocolError):
            await one.open(OURSELVES)


async def test_a_server_without_sessions_gets_no_session_header(wire: Wire) -> None:
    wire.answers["initialize"] = http(200, "application/json", reply(0, HELLO))
    await talk(wire, http(200, "application/json", reply(1, {})))
    assert "mcp-session-id" not in wire.seen[-1][1]


async def test_the_session_is_ended_upstream(wire: Wire) -> None:
    wire.answers["DELETE"] = http(204, "", b"")
    async with upstream(wire.url) as one:
        link = await one.open(OURSELVES)
        await one.end(link)
        await one.end(UpstreamSession(link.handshake, None))
    assert [verb for verb, _, _ in wire.seen].count("DELETE") == 1


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(_nobody, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def _nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def test_an_answer_to_another_id_is_no_answer(wire: Wire) -> None:
    found = await talk(wire, http(200, "application/json", reply(99, {"x": 1})))
    assert found[-1] == Reply(99, {"x": 1}, b'{"x": 1}')  # the exchange ignores it: see test_exchange


async def test_of_two_answers_the_first_counts(wire: Wire) -> None:
    body = event(reply(1, {"n": 1})) + event(reply(1, {"n": 2}))
    found = await talk(wire, http(200, "text/event-stream", body, length=False))
    assert found[-1] == Reply(1, {"n": 1}, b'{"n": 1}')


async def test_a_certificate_that_does_not_fit_is_named(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with upstream(f"https://localhost:{port}/mcp") as one:
        with pytest.raises(UpstreamUnreachable) as refusal:
            await one.open(OURSELVES)
    server.close()
    assert "certificate" in refusal.value.detail


async def test_a_call_that_is_answered_under_another_id_ends_with_outcome_unknown(wire: Wire) -> None:
    wire.answers["tools/call"] = http(200, "application/json", reply("not yours", {"x": 1}))
    async with upstream(wire.url) as one, asyncio.timeout(10):
        live = ServerLink(ServerSpec("s", wire.url), one, CallLimits(5, 5), lambda *_: None, _no_breaker)
        with pytest.raises(OutcomeUnknown):
            await live.call_shared(CALL)
        await live.close()


def _no_breaker(server: str, *, is_open: bool) -> None:
    """Nobody looks."""


async def test_who_leaves_at_the_response_head_leaves_no_connection_behind(wire: Wire) -> None:
    wire.answers["tools/call"] = http(200, "text/event-stream", event(reply(1, {"ok": 1})))
    async with upstream(wire.url) as one, asyncio.timeout(20):
        link = await one.open(OURSELVES)
        for _ in range(3):
            messages = messages_of(one, link, CALL)
            assert isinstance(await anext(messages), StreamOpened)
            await messages.aclose()
        [connections] = one._client._origins.values()
        assert connections.busy == 0


async def test_an_answer_that_the_server_refuses_has_a_line(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    async with upstream(wire.url) as one:
        link = await one.open(OURSELVES)
        wire.answers["POST"] = http(400, "", b"")
        await one.post(link, Reply("q", {"roots": []}))
    [line] = [record.getMessage() for record in caplog.records]
    assert line == "server s answered HTTP 400 to an answer to its request"


async def test_a_connection_that_breaks_in_whatever_way_after_sending_leaves_the_outcome_unknown(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_yet(self: object, limit: int) -> None:
        return None

    async def broken(self: object, limit: int) -> bytes:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>")

    wire.answers["tools/call"] = http(200, "application/json", reply(1, {}))
    async with upstream(wire.url) as one:
        link = await one.open(OURSELVES)
        monkeypatch.setattr("gateway.net.http1_client.Response.whole", not_yet)
        monkeypatch.setattr("gateway.net.http1_client.Response.read", broken)
        with pytest.raises(OutcomeUnknown):
            async for _ in messages_of(one, link, CALL):
                pass


async def test_a_client_that_was_closed_has_sent_nothing(wire: Wire) -> None:
    async with upstream(wire.url) as one:
        link = await one.open(OURSELVES)
        await one.close()
        with pytest.raises(UpstreamUnreachable, match="was not sent"):
            async for _ in messages_of(one, link, CALL):
                pass


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("/mcp/", "It redirects to {origin}/mcp/, which is not followed"),
        ("https://other.example/mcp?token=s3cret", "It redirects to https://other.example/mcp?token=[redacted]"),
        ("https://u:p@other.example/", "It redirects to https://other.example/,"),
        ("", "Redirects are not followed."),
        ("ftp://x/", "Redirects are not followed."),
        ("http://[", "Redirects are not followed."),
    ],
)
async def test_a_redirect_says_where_to(wire: Wire, location: str, said: str) -> None:
    wire.answers["initialize"] = http(307, "", b"", f"location: {location}\r\n" if location else "")
    async with upstream(wire.url) as one:
        with pytest.raises(UpstreamProtocolError) as refusal:
            await one.open(OURSELVES)
    assert said.format(origin=wire.url.removesuffix("/mcp")) in refusal.value.detail
    assert "s3cret" not in refusal.value.detail
    assert "u:p" not in refusal.value.detail
