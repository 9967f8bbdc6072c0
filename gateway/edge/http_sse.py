"""MCP's old HTTP+SSE transport (2024-11-05): `GET /sse` and `POST /messages`, at the aggregate.

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

from gateway.edge.answers import stream
from gateway.edge.mcp import check_batch, check_json, refused_as, take_note
from gateway.edge.mcp_get import watched
from gateway.edge.replies import Http, log_refusal, read_body, send_empty, send_failure
from gateway.errors import GatewayError, InvalidRequest, MethodNotAllowed, NotReady, SessionNotFound
from gateway.methods.call import Call, outcome_of
from gateway.methods.services import Gateway
from gateway.methods.table import METHODS, answered, dispatch
from gateway.model.principals import Principal
from gateway.protocol import versions
from gateway.protocol.messages import Batch, Failure, Message, Notification, Reply, Request, decode, encode
from gateway.protocol.sse import KEEP_ALIVE, encode_event
from gateway.sessions.session import Conversation
from gateway.stores.redis import RedisUnavailable
from gateway.tasks import end
from gateway.upstream.contract import Answering, Interrupted

_ADDRESS = "/sse"

log = logging.getLogger("gateway.legacy")


async def serve_stream(gateway: Gateway, http: Http, principal: Principal) -> None:
    """`GET /sse`: open a session; its first event says where to post. Raises NotReady, TooManyRequests."""
    if http.method != "GET":
        raise MethodNotAllowed(http.method, ("GET",))
    session = gateway.sessions.mint(principal, _ADDRESS, versions.V2024_11_05, gateway.clock())
    conversation = await gateway.conversations.open(session, principal, None, {}, {})
    if conversation.unwritten:
        await conversation.let_go()
        raise NotReady("The old HTTP+SSE transport needs Redis, which does not answer. Use /mcp, or try again.")
    gateway.telemetry.sessions.inc()
    base = urlsplit(http.base_url(gateway.settings.public_url)).path
    endpoint = f"{base}/messages?session_id={session.id}"
    try:
        with gateway.admission.stream(principal), gateway.telemetry.streams.track_inprogress():
            await stream(http, lambda: _frames(gateway, principal, conversation, endpoint))
    finally:
        try:
            await gateway.conversations.end(session)
        except GatewayError as error:
            log.warning("a session could not be ended: %s", error)


async def _frames(
    gateway: Gateway, principal: Principal, conversation: Conversation, endpoint: str
) -> AsyncGenerator[bytes, None]:
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(2)
    name = _stream(conversation)

    async def answers() -> None:
        try:
            async with aclosing(gateway.inbox.follow(name)) as entries:
                async for id, fields in entries:
                    await waiting.put(fields[b"d"])
                    await gateway.inbox.consumed(name, id, len(fields[b"d"]))
        except RedisUnavailable:
            await waiting.put(None)

    async def heard() -> None:
        async with watched(gateway, conversation, principal) as listening:
            while not listening.closed:
                payload = await listening.next(gateway.settings.keepalive_seconds)
                if payload is None:
                    listening.look()
                else:
                    await waiting.put(payload)
        await waiting.put(None)

    yield encode_event(endpoint.encode(), name="endpoint")
    tasks = [asyncio.create_task(answers()), asyncio.create_task(heard())]
    try:
        while not conversation.ended:
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


async def serve_message(gateway: Gateway, http: Http, principal: Principal) -> None:
    """`POST /messages?session_id=…`: take a message, say 202, carry it out; the answer goes on the stream."""
    try:
        if http.method != "POST":
            raise MethodNotAllowed(http.method, ("POST",))
        check_json(http)
        conversation = await _conversation(gateway, http, principal)
        message = decode(await read_body(http, gateway.settings.max_body, gateway.settings.body_seconds))
        with refused_as(message):
            if not await gateway.redis.answers():
                raise NotReady("The old HTTP+SSE transport needs Redis, which does not answer. Try again.")
        if isinstance(message, Batch):
            if conversation.session.version not in versions.HAS_BATCHES:
                raise InvalidRequest(f"Batches do not exist in MCP {conversation.session.version}.")
            check_batch(message, gateway.settings.max_batch)
    except GatewayError as error:
        log_refusal(http, error)
        await send_failure(http.send, error)
        return
    await send_empty(http.send, 202)
    entries = message.entries if isinstance(message, Batch) else (message,)
    await asyncio.gather(*(_carry_out(gateway, http, principal, conversation, entry) for entry in entries))


async def _conversation(gateway: Gateway, http: Http, principal: Principal) -> Conversation:
    query = parse_qs(http.scope.get("query_string", b"").decode("latin-1"))
    [id] = query.get("session_id", query.get("sessionId", [""]))[:1]
    session = gateway.sessions.read(id, principal, _ADDRESS, gateway.clock())
    if session.key in gateway.ended_sessions:
        raise SessionNotFound
    return await gateway.conversations.find(session, None)


async def _carry_out(
    gateway: Gateway, http: Http, principal: Principal, conversation: Conversation, message: Message | InvalidRequest
) -> None:
    if isinstance(message, InvalidRequest):
        await _say(gateway, conversation, encode(Failure(message.id, message.code, message.detail)))
        return
    if not isinstance(message, Request):
        try:
            await take_note(conversation, message)
        except GatewayError as error:  # it was answered with 202 already
            log_refusal(http, error)
        return

    async def tell(said: Answering | Interrupted | Notification | Request) -> None:
        if isinstance(said, Notification | Request):
            await _say(gateway, conversation, encode(said))

    call = Call(
        gateway,
        principal,
        gateway.sync.catalogue,
        message,
        version=conversation.session.version,
        conversation=conversation,
        reaches=True,
        tell=tell,
        request_id=http.request_id,
    )
    if message.method == "initialize":
        payload = await _initialize(call, conversation)
    else:
        payload = await answered(METHODS["aggregate"], call)
    await _say(gateway, conversation, payload)


async def _initialize(call: Call, conversation: Conversation) -> bytes:
    """The session's stream came first: here the client says what it is."""
    answer = await dispatch(METHODS["aggregate"], call)
    if isinstance(answer, Reply):
        await conversation.introduce(answer.result["protocolVersion"], call.request.params)
    payload = encode(answer)
    call.done(outcome_of(answer), len(payload))
    return payload


async def _say(gateway: Gateway, conversation: Conversation, payload: bytes) -> None:
    """Put a message on the client's stream; a client that does not read loses its session, not a message."""
    try:
        if not await gateway.inbox.append(_stream(conversation), payload):
            log.warning("a client does not read its stream, which is cut")
            await gateway.conversations.end(conversation.session)
    except (RedisUnavailable, GatewayError) as error:
        log.warning("a message for a client of the old transport is lost: %s", error)


def _stream(conversation: Conversation) -> str:
    return f"sse-{conversation.key}"
