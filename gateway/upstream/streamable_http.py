"""Streamable HTTP, from the client's side: JSON or event-stream answers, sessions by header.

The transports (here, `http_sse`, `rest`, `stdio`) and `net` know httpx; no floor above does.
Source: MCP 2025-11-25, basic, transports.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from gateway.errors import (
    AddressRefused,
    GatewayError,
    OutcomeUnknown,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.model.server import redact_url
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

_END_SECONDS = 1.0
_DRAIN_SECONDS = 0.5
_DRAIN_BYTES = 64 << 10
_POST = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
_GET = {"accept": "text/event-stream"}
_RETRY_SECONDS = 1.0  # where the server does not say
_MAX_RETRY_SECONDS = 30.0
_SAID = 700  # characters of a server's own words that are passed on
_RESUMES = 5  # attempts at taking up a stream again, of which each got nowhere


log = logging.getLogger("gateway.upstream")


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Bounds of one upstream's wire; times in seconds, sizes in bytes."""

    handshake_seconds: float = 10.0
    max_result: int = 16 << 20


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
        client: httpx.AsyncClient,
        limits: WireLimits,
        streams: httpx.AsyncClient | None = None,
    ) -> None:
        """`streams` carries what stays open, so that it takes no connection from calls."""
        self._server = server
        self._url = url
        self._client = client
        self._streams = streams or client
        self._limits = limits
        self._draining: set[asyncio.Task[None]] = set()

    async def open(self, hello: Hello, headers: Mapping[str, str] = MappingProxyType({})) -> UpstreamSession:
        request = exchange.initialize(hello)
        try:
            async with asyncio.timeout(self._limits.handshake_seconds):
                async with self._post(request, headers) as response:
                    await self._check(response, session=False)
                    session_id = response.headers.get("mcp-session-id")
                    handshake = exchange.accept(await self._first_answer(response))
                session = UpstreamSession(handshake, session_id)
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
        response = await self._sent(request, _headers(session))
        try:
            await self._check(response, session=session.session_id is not None)
            if _media_type(response) == "text/event-stream":
                return self._stream(session, request, response)
            with foreign(self._server):
                messages = [each async for each in self._messages(response, response.aiter_raw(), _Place())]
        except BaseException:
            await self._let_go(response, None)
            raise
        await self._let_go(response, None)
        answer = messages[0] if len(messages) == 1 else None
        if isinstance(answer, Reply | Failure) and answer.id == request.id:
            return answer
        return self._replay(messages)

    async def _replay(self, messages: list[Message]) -> MessageStream:
        """What a server sent beside its answer, or instead of it, in one body."""
        for message in messages:
            yield message
        raise self._lost()

    async def _stream(self, session: UpstreamSession, request: Request, response: httpx.Response) -> MessageStream:
        """The messages of an event stream, which is taken up again where it ends before the answer."""
        place, failed = _Place(), 0
        try:
            yield StreamOpened()
        except BaseException:  # who leaves at the yield
            await self._let_go(response, None)
            raise
        while True:
            chunks, answered, before = response.aiter_raw(), False, place.event_id
            try:
                with foreign(self._server):
                    async with aclosing(self._messages(response, chunks, place)) as messages:
                        async for message in messages:
                            answered = isinstance(message, Reply | Failure) and message.id == request.id
                            yield message
            except OutcomeUnknown:
                if place.event_id is None:
                    raise
            finally:
                await self._let_go(response, chunks if answered else None)
            failed = failed + 1 if place.event_id == before else 0
            if place.event_id is None or failed > _RESUMES:
                break
            yield Interrupted()
            response = await self._resumed(session, place)
        raise self._lost()

    async def _resumed(self, session: UpstreamSession, place: _Place) -> httpx.Response:
        """Take up a call's stream where it ended, by GET; the call was sent, so whatever fails leaves it unknown."""
        for _ in range(_RESUMES):
            await asyncio.sleep(place.retry_seconds)
            try:
                response = await self._got(self._client, session, place.event_id)
            except UpstreamUnreachable:
                continue
            except UpstreamError:
                break
            if response.status_code == 200 and _media_type(response) == "text/event-stream":
                return response
            await response.aclose()
            break
        raise self._lost()

    def _lost(self) -> OutcomeUnknown:
        return OutcomeUnknown(
            self._server, f"Server {self._server!r} ended its answer without a result; it may have carried it out."
        )

    async def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        response = await self._got(self._streams, session, after)
        try:
            with foreign(self._server):
                if response.status_code == 404 and session.session_id is not None:
                    raise SessionExpired("it answered 404")
                is_stream = _media_type(response) == "text/event-stream"
                if response.status_code == 405 or (response.status_code == 200 and not is_stream):
                    raise NoStream
                if response.status_code != 200:
                    raise UpstreamProtocolError(  # 409, say: its last stream is not closed yet
                        self._server, f"Server {self._server!r} answered GET with HTTP {response.status_code}."
                    )
                place = _Place(after)
                async with aclosing(self._messages(response, response.aiter_raw(), place)) as messages:
                    async for message in messages:
                        yield Heard(message, place.event_id)
        finally:
            await response.aclose()

    async def _got(self, client: httpx.AsyncClient, session: UpstreamSession, after: str | None) -> httpx.Response:
        """Open the server's stream, after an event where one is known; the response head is here."""
        headers = {**_GET, **_headers(session)}
        if after is not None:
            headers["last-event-id"] = after
        with foreign(self._server):
            return await client.send(client.build_request("GET", self._url, headers=headers), stream=True)

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        async with self._post(message, _headers(session)) as response:
            if response.status_code in (401, 403):
                await self._check(response, session=False)
            elif response.status_code >= 400:
                what = message.method if isinstance(message, Notification) else "an answer to its request"
                log.warning("server %s answered HTTP %d to %s", self._server, response.status_code, what)

    async def end(self, session: UpstreamSession) -> None:
        if session.session_id is None:
            return
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._client.delete(self._url, headers=_headers(session))
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, AddressRefused, RuntimeError):
            pass  # it expires upstream by itself

    async def close(self) -> None:
        await end(self._draining)
        await self._client.aclose()
        await self._streams.aclose()

    async def _first_answer(self, response: httpx.Response) -> Reply | Failure:
        async with aclosing(self._messages(response, response.aiter_raw(), _Place())) as messages:
            async for message in messages:
                if isinstance(message, Reply | Failure):
                    return message
        raise exchange.HandshakeRefused("it ended its answer to initialize without a result")

    @asynccontextmanager
    async def _post(self, message: Message, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        response = await self._sent(message, headers)
        try:
            with foreign(self._server):
                yield response
        finally:
            await self._let_go(response, response.aiter_raw())

    async def _sent(self, message: Message, headers: Mapping[str, str]) -> httpx.Response:
        """Send a message; the response head is here, its body is to be read and let go of."""
        if self._client.is_closed:
            raise UpstreamUnreachable(
                self._server, f"Server {self._server!r} was removed or changed; the request was not sent."
            )
        with foreign(self._server):
            request = self._client.build_request(
                "POST", self._url, content=encode(message), headers={**_POST, **headers}
            )
            return await self._client.send(request, stream=True)

    async def _let_go(self, response: httpx.Response, chunks: AsyncIterator[bytes] | None) -> None:
        """Close a response; one of which only the end is to come is read to it, so that its connection serves on."""
        if response.is_closed or chunks is None:
            await response.aclose()
            return
        task = asyncio.create_task(_drain(response, chunks))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    async def _check(self, response: httpx.Response, *, session: bool) -> None:
        """Let a 2xx pass. Raises SessionExpired or what else the status means."""
        status, coding = response.status_code, response.headers.get("content-encoding", "identity")
        if coding.strip().lower() not in ("", "identity"):
            raise UpstreamProtocolError(
                self._server, f"Server {self._server!r} answered with Content-Encoding {coding[:40]!r}, unasked."
            )
        if status == 200:
            return
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
            return
        if status == 400 and session and failure is not None and "session" in failure.message.lower():
            raise SessionExpired(failure.message[:200])  # what the SDKs' examples answer instead of 404
        said = f" ({failure.message[:_SAID]})" if failure is not None else ""
        where = _redirection(self._url, response) if 300 <= status < 400 else ""
        retry = response.headers.get("retry-after", "")
        raise UpstreamProtocolError(
            self._server,
            f"Server {self._server!r} answered HTTP {status}{said}.{where}",
            upstream_status=status,
            retry_after=int(retry) if retry.isascii() and retry.isdigit() and len(retry) < 6 else None,
        )

    async def _failure(self, response: httpx.Response) -> Failure | None:
        """The JSON-RPC error in an answer that is not 200, if there is one."""
        if _media_type(response) != "application/json":
            return None
        try:
            message = decode_answer(await self._body(response))
        except GatewayError:
            return None
        return message if isinstance(message, Failure) else None

    async def _messages(
        self, response: httpx.Response, chunks: AsyncIterator[bytes], place: _Place
    ) -> AsyncGenerator[Message, None]:
        media_type = _media_type(response)
        try:
            if media_type == "text/event-stream":
                decoder = SseDecoder(self._limits.max_result)
                async for chunk in chunks:
                    for event in decoder.feed(chunk):
                        place.passed(event)
                        if event.name == "message" and event.data:
                            for message in _flat(decode_answer(event.data)):
                                yield message
            elif media_type == "application/json":
                for message in _flat(decode_answer(await self._body(response))):
                    yield message
            else:
                raise UpstreamProtocolError(
                    self._server,
                    f"Server {self._server!r} answered with {media_type or 'no content type'}, not JSON or an event "
                    "stream; is the URL that of its MCP endpoint?",
                )
        except EventTooLarge:
            raise too_large(self._server, self._limits.max_result) from None
        except UpstreamError:
            raise
        except GatewayError as error:
            raise UpstreamProtocolError(
                self._server, f"Server {self._server!r} sent a malformed message: {error.detail}"
            ) from None

    async def _body(self, response: httpx.Response) -> bytes:
        if not response.is_stream_consumed:
            response._content = await read_bounded(self._server, response, self._limits.max_result)
        return response.content


async def _drain(response: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
    """Read the little that is left of a response, within bounds, and close it."""
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            left = _DRAIN_BYTES
            async for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    break
    except (TimeoutError, httpx.HTTPError, httpx.StreamError, RuntimeError):
        pass  # then its connection is closed
    finally:
        await response.aclose()


@contextmanager
def foreign(server: str) -> Iterator[None]:
    """The border that turns the HTTP client's exceptions into ours, naming the server."""
    try:
        yield
    except AddressRefused as error:
        raise UpstreamUnreachable(server, f"Server {server!r} is not connected to. {error.detail}") from None
    except (httpx.InvalidURL, UnicodeError) as error:
        raise UpstreamUnreachable(server, f"Server {server!r} can't be reached: {_why(error)}.") from None
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
        raise UpstreamUnreachable(server, f"Server {server!r} can't be reached: {_why(error)}.") from None
    except (httpx.HTTPError, RuntimeError) as error:  # uvloop raises RuntimeError on a transport that was closed
        raise OutcomeUnknown(
            server,
            f"The connection to server {server!r} was lost ({_why(error)}); "
            "it may or may not have carried the request out.",
        ) from None


async def read_bounded(server: str, response: httpx.Response, limit: int) -> bytes:
    """Read a whole body. Raises UpstreamProtocolError when it is larger than `limit` bytes."""
    chunks, size = [], 0
    async for chunk in response.aiter_raw():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise too_large(server, limit)
    return b"".join(chunks)


def too_large(server: str, limit: int) -> UpstreamProtocolError:
    """What a server that sends too much has done."""
    return UpstreamProtocolError(
        server, f"Server {server!r} sent a message of more than {limit} bytes (GATEWAY_MAX_RESULT)."
    )


def _redirection(url: str, response: httpx.Response) -> str:
    """Where a redirect leads, which is not followed: an address is vetted and shown before it gets credentials."""
    try:
        there = urljoin(url, response.headers.get("location", ""))
        parts = urlsplit(there)
    except ValueError:
        there, parts = url, urlsplit(url)
    if there == url or parts.scheme not in ("http", "https"):
        return " Redirects are not followed."
    shown = redact_url(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))[:_SAID]
    return f" It redirects to {shown}, which is not followed: if that is its MCP endpoint, register that URL."


def _headers(session: UpstreamSession) -> dict[str, str]:
    headers = {"mcp-protocol-version": session.handshake.version}
    if session.session_id is not None:
        headers["mcp-session-id"] = session.session_id
    return headers


def _media_type(response: httpx.Response) -> str:
    content_type: str = response.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower()


def _flat(message: Message | Batch) -> list[Message]:
    if isinstance(message, Batch):
        return [entry for entry in message.entries if not isinstance(entry, GatewayError)]
    return [message]


def _why(error: BaseException) -> str:
    """The system's own words for what went wrong, from as deep as they stand."""
    found: BaseException | None = error
    text = str(error) or type(error).__name__
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"its certificate is not valid: {found.verify_message}"
        if isinstance(found, ssl.SSLError) and found.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return "it does not speak TLS; should its URL begin with http://?"
        if isinstance(found, OSError) and found.strerror:
            text = found.strerror
        if isinstance(found, BaseExceptionGroup) and found.exceptions:
            found = found.exceptions[0]
        else:
            found = found.__cause__ or found.__context__
    return text.rstrip(".")
