"""The old HTTP+SSE transport, from the client's side: one stream per stream, requests posted beside it.

The stream lives and ends with its stream, so it is bound to the worker that holds it. Source: MCP 2024-11-05, basic,
transports, HTTP with SSE.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from urllib.parse import urljoin, urlsplit

from gateway.errors import (
    GatewayError,
    OutcomeUnknown,
    UpstreamProtocolError,
    UpstreamRefused,
    UpstreamTimeout,
)
from gateway.net.http1_client import Response
from gateway.net.http_client import HttpClient
from gateway.protocol import exchange
from gateway.protocol.exchange import Hello
from gateway.protocol.messages import Batch, Failure, Message, Notification, Reply, Request, decode_answer, encode
from gateway.protocol.sse import EventTooLarge, SseDecoder
from gateway.tasks import end
from gateway.upstream.contract import Heard, MessageStream, SessionExpired, StreamOpened, UpstreamSession
from gateway.upstream.multiplexer import ChannelClosed, Multiplexer
from gateway.upstream.wire import WireLimits, foreign, media_type, too_large

_REST_SECONDS = 0.5
_REST_BYTES = 64 << 10
_JSON = {"content-type": "application/json"}
_STREAM = {"accept": "text/event-stream"}


log = logging.getLogger("gateway.legacy_sse")


class _Stream:
    """One stream, and the address that the server named on it."""

    def __init__(self, upstream: HttpSseUpstream, *, shared: bool) -> None:
        self.id = os.urandom(12).hex()
        self.endpoint: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.multiplexer = Multiplexer(lambda message: upstream.write(self, message), shared=shared)
        self.reading: asyncio.Task[None] | None = None


class HttpSseUpstream:
    """One server behind the URL of its stream; `holder` names the worker that all this happens in."""

    def __init__(self, server: str, url: str, client: HttpClient, limits: WireLimits, holder: str) -> None:
        self._server = server
        self._url = url
        self._client = client
        self._limits = limits
        self._holder = holder
        self._streams: dict[str, _Stream] = {}

    async def open(self, hello: Hello) -> UpstreamSession:
        stream = _Stream(self, shared=hello.shared)
        stream.reading = asyncio.create_task(self._read(stream))
        seconds = self._limits.handshake_seconds
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(stream.endpoint)
                async with aclosing(stream.multiplexer.request(exchange.initialize(hello))) as messages:
                    async for message in messages:
                        if isinstance(message, Reply | Failure):
                            handshake = exchange.accept(message)
                await stream.multiplexer.post(exchange.INITIALIZED)
            self._streams[stream.id] = stream
            return UpstreamSession(handshake, stream.id, self._holder)
        except exchange.HandshakeRefused as error:
            raise UpstreamProtocolError(self._server, f"Server {self._server!r} is no MCP server: {error}.") from None
        except ChannelClosed as error:
            raise UpstreamProtocolError(self._server, f"Server {self._server!r} closed its stream: {error}.") from None
        except TimeoutError:
            raise UpstreamTimeout(
                self._server, f"Server {self._server!r} did not finish the handshake in {seconds:g} s."
            ) from None
        finally:
            if stream.id not in self._streams:
                await end([stream.reading])
                if stream.endpoint.done() and not stream.endpoint.cancelled():
                    stream.endpoint.exception()  # seen

    async def call(self, session: UpstreamSession, request: Request) -> MessageStream:
        return self._messages(self._stream(session), request)

    async def _messages(self, stream: _Stream, request: Request) -> MessageStream:
        yield StreamOpened()
        try:
            async with aclosing(stream.multiplexer.request(request)) as messages:
                async for message in messages:
                    yield message
        except ChannelClosed as error:
            raise OutcomeUnknown(
                self._server,
                f"The stream of server {self._server!r} was lost ({error}); it may or may not have carried out "
                "the request.",
            ) from None

    async def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        async with aclosing(self._stream(session).multiplexer.listen()) as messages:
            async for message in messages:
                yield Heard(message, None)

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        try:
            multiplexer = self._stream(session).multiplexer
            await multiplexer.post(message)
            multiplexer.cancelled(message)
        except (ChannelClosed, SessionExpired):
            pass  # with its stream the stream is over

    async def end(self, session: UpstreamSession) -> None:
        stream = self._streams.pop(session.session_id or "", None)
        if stream is not None and stream.reading is not None:
            await end([stream.reading])

    async def close(self) -> None:
        await end([each.reading for each in self._streams.values() if each.reading is not None])
        self._client.close()

    async def write(self, stream: _Stream, message: Message) -> None:
        """Post a message where the server said. Raises UpstreamError."""
        with foreign(self._server):
            answer = await self._client.send("POST", stream.endpoint.result(), _JSON, encode(message))
            try:  # what it says belongs on the stream; a few bytes are read so that the connection serves on
                async with asyncio.timeout(_REST_SECONDS):
                    await answer.read(_REST_BYTES)
            except TimeoutError:
                pass
            finally:
                answer.close()
        if answer.status in (401, 403):
            raise UpstreamRefused(self._server, f"Server {self._server!r} answered {answer.status}.")
        if answer.status >= 300:
            raise UpstreamProtocolError(
                self._server,
                f"Server {self._server!r} answered a message with HTTP {answer.status}.",
                upstream_status=answer.status,
            )

    def _stream(self, session: UpstreamSession) -> _Stream:
        stream = self._streams.get(session.session_id or "")
        if stream is None or stream.multiplexer.closed is not None:
            raise SessionExpired("its stream is gone")
        return stream

    async def _read(self, stream: _Stream) -> None:
        reason = "the server ended it"
        try:
            with foreign(self._server):
                response = await self._client.send("GET", self._url, _STREAM)
                try:
                    self._check(response)
                    await self._feed(stream, response)
                finally:
                    response.close()
        except GatewayError as error:
            reason = error.detail
            if not stream.endpoint.done():
                stream.endpoint.set_exception(error)
        finally:
            if not stream.endpoint.done():
                stream.endpoint.set_exception(
                    UpstreamProtocolError(self._server, f"Server {self._server!r} ended its stream at once.")
                )
            stream.multiplexer.close(reason)
            self._streams.pop(stream.id, None)

    def _check(self, response: Response) -> None:
        if response.status in (401, 403):
            raise UpstreamRefused(
                self._server,
                f"Server {self._server!r} answered {response.status} to the credentials it is registered with; "
                "check its `headers`.",
            )
        found = media_type(response)
        if response.status != 200 or found != "text/event-stream":
            raise UpstreamProtocolError(
                self._server,
                f"Server {self._server!r} has no event stream at its URL: HTTP {response.status}, "
                f"{found or 'no content type'}.",
                upstream_status=response.status,
            )

    async def _feed(self, stream: _Stream, response: Response) -> None:
        decoder = SseDecoder(self._limits.max_result)
        try:
            while chunk := await response.receive():
                for event in decoder.feed(chunk):
                    if event.name == "endpoint" and not stream.endpoint.done():
                        stream.endpoint.set_result(self._endpoint(event.data))
                    elif event.name == "message" and event.data:
                        self._hear(stream, event.data)
        except EventTooLarge:
            raise too_large(self._server, self._limits.max_result) from None

    def _hear(self, stream: _Stream, data: bytes) -> None:
        """One message of the stream; a malformed one is logged and left out."""
        try:
            message = decode_answer(data)
        except GatewayError as error:
            log.warning("server %s sent a malformed message: %s", self._server, error.detail[:200])
            return
        for each in message.entries if isinstance(message, Batch) else (message,):
            if not isinstance(each, GatewayError):
                stream.multiplexer.feed(each, len(data))

    def _endpoint(self, data: bytes) -> str:
        """Where to post; only at the server's own origin. Raises UpstreamProtocolError."""
        with suppress(ValueError):
            url = urljoin(self._url, data.decode(errors="replace").strip())
            asked, named = urlsplit(self._url), urlsplit(url)
            if (asked.scheme, asked.hostname, asked.port) == (named.scheme, named.hostname, named.port):
                return url
        raise UpstreamProtocolError(
            self._server, f"Server {self._server!r} wants its messages posted at another origin, which is refused."
        )
