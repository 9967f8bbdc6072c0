"""MCP's old HTTP+SSE transport (2024-11-05): `GET /sse` and `POST /messages`, also below a toolset.

The client's one stream is held by the worker that it reached; a message may be posted to any worker, which carries it
out and puts what it has to say on the stream in Redis that the holder sends from. The session ends with the stream.
Source: MCP 2024-11-05, basic, transports, HTTP with SSE.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import parse_qs, urlsplit

from gateway.edge.mcp import check_batches_exist, take_note
from gateway.edge.request import Http, Protocol
from gateway.edge.response import log_refusal, send_empty, stream
from gateway.errors import GatewayError, InvalidRequest, NotReady
from gateway.methods.call import Call, failure, invoke
from gateway.methods.services import Gateway
from gateway.methods.table import METHODS
from gateway.methods.views import view_of
from gateway.model.endpoints import Endpoint
from gateway.model.principals import Principal
from gateway.model.tool_modes import asked_mode
from gateway.model.view import View
from gateway.protocol import versions
from gateway.protocol.messages import Batch, Message, Notification, Request, decode, encode
from gateway.protocol.sse import KEEP_ALIVE, encode_event
from gateway.sessions.session import Session
from gateway.stores.redis import RedisUnavailable
from gateway.tasks import end

_ADDRESS = Endpoint("/sse")

log = logging.getLogger("gateway.http_sse")


async def serve_stream(gateway: Gateway, http: Http, principal: Principal, toolset: str | None = None) -> None:
    """MCP's old transport: open a session; its first event says where to post. Raises NotReady, TooManyRequests."""
    await view_of(gateway, principal, toolset)
    mode = asked_mode(http.query) if http.query else None
    session = await gateway.sessions.open(principal, _address(toolset), versions.V2024_11_05, {}, {})
    if not session.local.is_shared:
        gateway.sessions.drop(session.key)
        raise NotReady("The old HTTP+SSE transport needs Redis, which does not answer. Use /mcp, or try again.")
    gateway.metrics.sessions.inc()
    base = urlsplit(http.base_url(gateway.settings.public_url)).path
    below = "" if toolset is None else f"/mcp/toolsets/{toolset}"
    endpoint = f"{base}{below}/messages?session_id={session.id.text}{f'&tools={mode}' if mode else ''}"
    http.protocol = Protocol.JSON_RPC  # what the stream carries
    try:
        with gateway.admission.stream(principal), gateway.metrics.streams.track_inprogress():
            await stream(http, lambda: _frames(gateway, principal, session, endpoint))
    finally:
        try:
            await gateway.sessions.end(session.id)
        except GatewayError as error:
            log.warning("a session could not be ended: %s", error)


async def _frames(
    gateway: Gateway, principal: Principal, session: Session, endpoint: str
) -> AsyncGenerator[bytes, None]:
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(2)
    name = _stream(session)

    async def answers() -> None:
        try:
            async with aclosing(gateway.inbox.follow(name)) as entries:
                async for id, fields in entries:
                    await waiting.put(fields[b"d"])
                    await gateway.inbox.consumed(name, id, len(fields[b"d"]))
        except RedisUnavailable:
            await waiting.put(None)

    async def heard() -> None:
        own_stream = await gateway.sessions.listen(session, gateway.authenticator.current(principal) or principal)
        try:
            while not own_stream.closed:
                payload = await own_stream.next(gateway.settings.keepalive_seconds)
                if payload is None:
                    own_stream.look_again()
                else:
                    await waiting.put(payload)
        finally:
            await gateway.sessions.listen_no_more(session, own_stream)
        await waiting.put(None)

    yield encode_event(endpoint.encode(), name="endpoint")
    tasks = [asyncio.create_task(answers()), asyncio.create_task(heard())]
    try:
        while not session.ended:
            try:
                async with asyncio.timeout(gateway.settings.keepalive_seconds):
                    payload = await waiting.get()
            except TimeoutError:
                yield KEEP_ALIVE
                continue
            if payload is None:
                return
            yield encode_event(payload, name="message")
    finally:
        await end(tasks)


async def serve_message(gateway: Gateway, http: Http, principal: Principal, toolset: str | None = None) -> None:
    """MCP's old transport: take a message (`?session_id=…`), say 202; the answer goes on the stream."""
    http.check_json()
    view, mode = await view_of(gateway, principal, toolset), asked_mode(http.query)
    query = parse_qs(http.query.decode("latin-1"))
    [id] = query.get("session_id", query.get("sessionId", [""]))[:1]
    session = await gateway.sessions.find(id, principal, _address(toolset))
    body = await http.read_body(gateway.settings.max_body, gateway.settings.body_seconds)
    message = decode(body, gateway.settings.max_batch)
    if not await gateway.redis.answers():
        refusal = NotReady("The old HTTP+SSE transport needs Redis, which does not answer. Try again.")
        refusal.id = message.id if isinstance(message, Request) else None
        raise refusal
    if isinstance(message, Batch):
        check_batches_exist(session.version)
    await send_empty(http, 202)
    entries = message.entries if isinstance(message, Batch) else (message,)
    await asyncio.gather(*(_carry_out(gateway, http, principal, view, mode, session, entry) for entry in entries))


def _address(toolset: str | None) -> Endpoint:
    return _ADDRESS if toolset is None else Endpoint(f"/mcp/toolsets/{toolset}/sse", toolset=toolset)


async def _carry_out(
    gateway: Gateway,
    http: Http,
    principal: Principal,
    view: View,
    mode: str | None,
    session: Session,
    message: Message | InvalidRequest,
) -> None:
    if isinstance(message, InvalidRequest):
        await _say(gateway, session, encode(failure(message, message.id)))
        return
    if not isinstance(message, Request):
        try:
            await take_note(session, message)
        except GatewayError as error:  # it was answered with 202 already
            log_refusal(http, error)
        return
    call = Call(
        gateway,
        principal,
        view,
        message,
        version=session.version,
        session=session,
        can_ask=True,
        events=_Events(gateway, session),
        request_id=http.request_id,
        address=http.path,
        mode=mode,
    )
    outcome, payload = await invoke(METHODS["aggregate"], call)
    if message.method == "initialize" and outcome.reply is not None:  # the session's stream came first
        version, limit = outcome.reply.result["protocolVersion"], gateway.settings.max_hello
        try:
            await session.introduce(version, message.params, limit)
        except GatewayError as error:
            payload = encode(failure(error, message.id))
    await _say(gateway, session, payload)


class _Events:
    """Puts what comes before the answer on the client's stream."""

    def __init__(self, gateway: Gateway, session: Session) -> None:
        self._gateway = gateway
        self._session = session

    async def on_stream(self) -> None:
        pass

    async def on_interruption(self) -> None:
        pass

    async def on_message(self, message: Notification | Request) -> None:
        await _say(self._gateway, self._session, encode(message))


async def _say(gateway: Gateway, session: Session, payload: bytes) -> None:
    """Put a message on the client's stream; a client that does not read loses its session, not a message."""
    try:
        if not await gateway.inbox.append(_stream(session), payload):
            log.warning("a client does not read its stream, which is cut")
            await gateway.sessions.end(session.id)
    except (RedisUnavailable, GatewayError) as error:
        log.warning("a message for a client of the old transport is lost: %s", error)


def _stream(session: Session) -> str:
    return f"sse-{session.key}"
