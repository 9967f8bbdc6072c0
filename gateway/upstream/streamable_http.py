"""Streamable HTTP, from the client's side: JSON or event-stream answers, sessions by header.

Source: MCP 2025-11-25, basic, transports.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from functools import lru_cache
from urllib.parse import urljoin, urlsplit, urlunsplit

from gateway.errors import (
    GatewayError,
    OutcomeUnknown,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.model.redaction import redact_url
from gateway.net.http1_client import Response
from gateway.net.http_client import Endpoint, HttpClient
from gateway.protocol import exchange
from gateway.protocol.exchange import Hello
from gateway.protocol.messages import (
    Batch,
    Failure,
    Message,
    Notification,
    Reply,
    Request,
    decode_answer,
    encode,
)
from gateway.protocol.sse import EventTooLarge, ServerSentEvent, SseDecoder
from gateway.tasks import end
from gateway.upstream.contract import (
    Heard,
    Interrupted,
    MessageStream,
    NoStream,
    SessionExpired,
    StreamOpened,
    UpstreamSession,
)
from gateway.upstream.wire import FOREIGN, WireLimits, foreign, media_type, read_bounded, too_large, translated

_END_SECONDS = 1.0
_DRAIN_SECONDS = 0.5
_DRAIN_BYTES = 64 << 10
_POST = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
_GET = {"accept": "text/event-stream"}
_RETRY_SECONDS = 1.0  # where the server does not say
_MAX_RETRY_SECONDS = 30.0
_MAX_KEPT = 256  # characters of a session id whose lines are kept
_SAID = 700  # characters of a server's own words that are passed on
_ANSWERS = (Reply, Failure)
_RESUMES = 5  # attempts at taking up a stream again, of which each got nowhere


log = logging.getLogger("gateway.upstream")


class _Place:
    """Where in a server's event stream we are, and how long to wait before it is taken up again."""

    def __init__(self, event_id: str | None = None) -> None:
        self.event_id = event_id
        self.retry_seconds = _RETRY_SECONDS

    def passed(self, event: ServerSentEvent) -> None:
        if event.id:
            self.event_id = event.id
        if event.retry is not None:
            self.retry_seconds = min(event.retry / 1000, _MAX_RETRY_SECONDS)


class StreamableHttpUpstream:
    """One server behind one URL; its connections are pooled and kept alive."""

    def __init__(
        self,
        server: str,
        url: str,
        client: HttpClient,
        limits: WireLimits,
        streams: HttpClient | None = None,
    ) -> None:
        """`streams` carries what stays open, so that it takes no connection from calls."""
        self._server = server
        self._url = url
        self._client = client
        self._streams = streams or client
        self._limits = limits
        self._posting: Endpoint | None = None
        self._draining: set[asyncio.Task[None]] = set()

    async def open(self, hello: Hello, headers: bytes = b"") -> UpstreamSession:
        """Shake hands; `headers` are lines that go with `initialize`. Raises UpstreamError."""
        try:
            async with asyncio.timeout(self._limits.handshake_seconds):
                response = await self._sent(exchange.initialize(hello), headers)
                try:
                    answer = await self._checked(response, session=False) or await self._first_answer(response)
                finally:
                    self._let_go(response)
                session = UpstreamSession(exchange.accept(answer), response.header(b"mcp-session-id") or None)
                await self.post(session, exchange.INITIALIZED)
                return session
        except exchange.HandshakeRefused as error:
            raise UpstreamProtocolError(self._server, f"Server {self._server!r} is no MCP server: {error}.") from None
        except TimeoutError:
            raise UpstreamTimeout(
                self._server,
                f"Server {self._server!r} did not finish the handshake in {self._limits.handshake_seconds:g} s.",
            ) from None

    async def call(self, session: UpstreamSession, request: Request) -> Reply | Failure | MessageStream:
        try:
            response = await self._send(request, _headers(session))
        except FOREIGN as error:
            raise translated(self._server, error) from None
        try:
            answer: Message | Batch | None = None
            if response.status != 200 or b"content-encoding" in response.named:
                answer = await self._checked(response, session=session.session_id is not None)
            if answer is None:
                kind = media_type(response)
                if kind == "text/event-stream":
                    return self._stream(session, request, response)
                data = response.whole(self._limits.max_result) if kind == "application/json" else None
                answer = await self._body(response, kind) if data is None else self._read(data)
        except BaseException:
            response.close()
            raise
        if isinstance(answer, _ANSWERS) and answer.id == request.id:
            return answer
        return self._replay(_flat(answer))

    async def _replay(self, messages: list[Message]) -> MessageStream:
        """What a server sent beside its answer, or instead of it, in one body."""
        for message in messages:
            yield message
        raise self._lost()

    async def _stream(self, session: UpstreamSession, request: Request, response: Response) -> MessageStream:
        """The messages of an event stream, which is taken up again where it ends before the answer."""
        place, failed = _Place(), 0
        try:
            yield StreamOpened()
        except BaseException:  # who leaves at the yield
            response.close()
            raise
        while True:
            answered, before = False, place.event_id
            try:
                async with aclosing(self._events(response, place)) as messages:
                    async for message in messages:
                        answered = isinstance(message, Reply | Failure) and message.id == request.id
                        yield message
            except OutcomeUnknown:
                if place.event_id is None:
                    raise
            finally:
                if answered:
                    self._let_go(response)
                else:
                    response.close()
            failed = failed + 1 if place.event_id == before else 0
            if place.event_id is None or failed > _RESUMES:
                break
            yield Interrupted()
            response = await self._resumed(session, place)
        raise self._lost()

    async def _resumed(self, session: UpstreamSession, place: _Place) -> Response:
        """Take up a call's stream where it ended, by GET; the call was sent, so whatever fails leaves it unknown."""
        for _ in range(_RESUMES):
            await asyncio.sleep(place.retry_seconds)
            try:
                response = await self._got(self._client, session, place.event_id)
            except UpstreamUnreachable:
                continue
            except UpstreamError:
                break
            if response.status == 200 and media_type(response) == "text/event-stream":
                return response
            response.close()
            break
        raise self._lost()

    def _lost(self) -> OutcomeUnknown:
        return OutcomeUnknown(
            self._server, f"Server {self._server!r} ended its answer without a result; it may have carried it out."
        )

    async def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        response = await self._got(self._streams, session, after)
        try:
            if response.status == 404 and session.session_id is not None:
                raise SessionExpired("it answered 404")
            is_stream = media_type(response) == "text/event-stream"
            if response.status == 405 or (response.status == 200 and not is_stream):
                raise NoStream
            if response.status != 200:
                raise UpstreamProtocolError(  # 409, say: its last stream is not closed yet
                    self._server, f"Server {self._server!r} answered GET with HTTP {response.status}."
                )
            place = _Place(after)
            async with aclosing(self._events(response, place)) as messages:
                async for message in messages:
                    yield Heard(message, place.event_id)
        finally:
            response.close()

    async def _got(self, client: HttpClient, session: UpstreamSession, after: str | None) -> Response:
        """Open the server's stream, after an event where one is known; the response head is here."""
        headers = _headers(session)
        if after is not None:
            headers += b"last-event-id: %b\r\n" % after.encode()
        with foreign(self._server):
            return await client.endpoint("GET", self._url, _GET).send(headers=headers)

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        response = await self._sent(message, _headers(session))
        try:
            if response.status in (401, 403):
                await self._checked(response, session=False)
            elif response.status >= 400:
                what = message.method if isinstance(message, Notification) else "an answer to its request"
                log.warning("server %s answered HTTP %d to %s", self._server, response.status, what)
        finally:
            self._let_go(response)

    async def end(self, session: UpstreamSession) -> None:
        if session.session_id is None:
            return
        try:
            async with asyncio.timeout(_END_SECONDS):
                response = await self._client.endpoint("DELETE", self._url).send(headers=_headers(session))
            self._let_go(response)
        except (TimeoutError, *FOREIGN):
            pass  # it expires upstream by itself

    async def close(self) -> None:
        await end(self._draining)
        self._client.close()
        self._streams.close()

    async def _first_answer(self, response: Response) -> Reply | Failure:
        if media_type(response) == "text/event-stream":
            async with aclosing(self._events(response, _Place())) as messages:
                async for message in messages:
                    if isinstance(message, Reply | Failure):
                        return message
        else:
            for message in _flat(await self._body(response, media_type(response))):
                if isinstance(message, Reply | Failure):
                    return message
        raise exchange.HandshakeRefused("it ended its answer to initialize without a result")

    async def _sent(self, message: Message, headers: bytes) -> Response:
        """Send a message; the head of the answer is here, its body is to be read and let go of."""
        try:
            return await self._send(message, headers)
        except FOREIGN as error:
            raise translated(self._server, error) from None

    def _send(self, message: Message, headers: bytes) -> Awaitable[Response]:
        """The same with the HTTP client's own errors."""
        if self._client.is_closed:
            raise UpstreamUnreachable(
                self._server, f"Server {self._server!r} was removed or changed; the request was not sent."
            )
        if self._posting is None:
            self._posting = self._client.endpoint("POST", self._url, _POST)
        return self._posting.send(encode(message), headers)

    def _let_go(self, response: Response) -> None:
        """Close a response; one of which only the end is to come is read to it, so that its connection serves on."""
        if not response.is_closed:
            task = asyncio.create_task(_drain(response))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)

    async def _checked(self, response: Response, *, session: bool) -> Failure | None:
        """Let a 200 pass; the JSON-RPC error that came with another status, if it answers the request.

        Raises SessionExpired, or UpstreamError for what else the status means.
        """
        status, coding = response.status, response.header(b"content-encoding")
        if coding and coding.strip().lower() != "identity":
            raise UpstreamProtocolError(
                self._server, f"Server {self._server!r} answered with Content-Encoding {coding[:40]!r}, unasked."
            )
        if status == 200:
            return None
        if status == 404 and session:
            raise SessionExpired("it answered 404")
        if status in (401, 403):
            raise UpstreamRefused(
                self._server,
                f"Server {self._server!r} answered {status} to the credentials it is registered with; "
                "check its `headers`.",
            )
        if status == 508:
            raise UpstreamProtocolError(
                self._server,
                f"Server {self._server!r} leads back to this gateway (HTTP 508); remove it.",
                upstream_status=508,
            )
        failure = await self._failure(response)
        if failure is not None and failure.id is not None:
            return failure
        if status == 400 and session and failure is not None and "session" in failure.message.lower():
            raise SessionExpired(failure.message[:200])  # what the SDKs' examples answer instead of 404
        said = f" ({failure.message[:_SAID]})" if failure is not None else ""
        where = _redirection(self._url, response) if 300 <= status < 400 else ""
        retry = response.header(b"retry-after")
        raise UpstreamProtocolError(
            self._server,
            f"Server {self._server!r} answered HTTP {status}{said}.{where}",
            upstream_status=status,
            retry_after=int(retry) if retry.isascii() and retry.isdigit() and len(retry) < 6 else None,
        )

    async def _failure(self, response: Response) -> Failure | None:
        """The JSON-RPC error in an answer that is not 200, if there is one."""
        if media_type(response) != "application/json":
            return None
        try:
            message = await self._body(response, "application/json")
        except GatewayError:
            return None
        return message if isinstance(message, Failure) else None

    async def _body(self, response: Response, found: str) -> Message | Batch:
        """The messages of an answer that is no stream, of the media type found. Raises UpstreamError."""
        if found != "application/json":
            raise UpstreamProtocolError(
                self._server,
                f"Server {self._server!r} answered with {found or 'no content type'}, not JSON or an event "
                "stream; is the URL that of its MCP endpoint?",
            )
        try:
            data = response.whole(self._limits.max_result)
            if data is None:
                data = await read_bounded(self._server, response, self._limits.max_result)
        except (*FOREIGN, GatewayError) as error:
            raise self._judged(error) from None
        return self._read(data)

    def _read(self, data: bytes) -> Message | Batch:
        """The messages in a body. Raises UpstreamProtocolError."""
        try:
            return decode_answer(data)
        except GatewayError as error:
            raise self._judged(error) from None

    async def _events(self, response: Response, place: _Place) -> AsyncGenerator[Message, None]:
        """The messages of an event stream, as they come. Raises UpstreamError."""
        decoder = SseDecoder(self._limits.max_result)
        try:
            while chunk := await response.receive():
                for event in decoder.feed(chunk):
                    place.passed(event)
                    if event.name == "message" and event.data:
                        for message in _flat(decode_answer(event.data)):
                            yield message
        except (EventTooLarge, *FOREIGN, GatewayError) as error:
            raise self._judged(error) from None

    def _judged(self, error: Exception) -> UpstreamError:
        """What went wrong while an answer was read, as an error that names the server."""
        if isinstance(error, UpstreamError):
            return error
        if isinstance(error, EventTooLarge):
            return too_large(self._server, self._limits.max_result)
        if isinstance(error, FOREIGN):
            return translated(self._server, error)
        said = error.detail if isinstance(error, GatewayError) else str(error)
        return UpstreamProtocolError(self._server, f"Server {self._server!r} sent a malformed message: {said}")


async def _drain(response: Response) -> None:
    """Read the little that is left of a response, within bounds, and close it."""
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            left = _DRAIN_BYTES
            while left >= 0 and (chunk := await response.receive()):
                left -= len(chunk)
    except (TimeoutError, *FOREIGN):
        pass  # then its connection is closed
    finally:
        response.close()


def _redirection(url: str, response: Response) -> str:
    """Where a redirect leads, which is not followed: an address is vetted and shown before it gets credentials."""
    try:
        there = urljoin(url, response.header(b"location"))
        parts = urlsplit(there)
    except ValueError:
        there, parts = url, urlsplit(url)
    if there == url or parts.scheme not in ("http", "https"):
        return " Redirects are not followed."
    shown = redact_url(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))[:_SAID]
    return f" It redirects to {shown}, which is not followed: if that is its MCP endpoint, register that URL."


def _headers(session: UpstreamSession) -> bytes:
    """The header lines that name a session and its revision."""
    id = session.session_id
    made = _kept_lines if id is None or len(id) <= _MAX_KEPT else _lines
    return made(session.handshake.version, id)


def _lines(version: str, session_id: str | None) -> bytes:
    lines = f"mcp-protocol-version: {version}\r\n"
    if session_id is not None:
        lines += f"mcp-session-id: {session_id}\r\n"
    return lines.encode("latin-1")


_kept_lines = lru_cache(maxsize=4096)(_lines)


def _flat(message: Message | Batch) -> list[Message]:
    if isinstance(message, Batch):
        return [entry for entry in message.entries if not isinstance(entry, GatewayError)]
    return [message]
