"""JSON-RPC over HTTP: MCP's endpoints with their sessions, and `/rpc` without.

Reads a body, places it (`inbound`), dispatches it (`methods`) and frames the answer. Source: MCP 2025-11-25, basic,
transports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from gateway.edge import mcp_get as own_stream
from gateway.edge.address import Address
from gateway.edge.answers import Answer
from gateway.edge.replies import (
    Accepts,
    Http,
    accepts,
    log_refusal,
    read_body,
    send_bytes,
    send_empty,
    send_failure,
)
from gateway.errors import (
    ClientLeft,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    UnsupportedMediaType,
)
from gateway.methods.call import Call, outcome_of
from gateway.methods.services import Gateway
from gateway.methods.table import METHODS, answered, dispatch
from gateway.model.principals import Principal
from gateway.protocol import versions
from gateway.protocol.messages import (
    Batch,
    Failure,
    Id,
    Message,
    Notification,
    Reply,
    Request,
    decode,
    encode,
)
from gateway.protocol.placement import Inbound, Refusal, classify
from gateway.protocol.sse import encode_event
from gateway.sessions.session import Conversation, introduction
from gateway.upstream.contract import Answering, Interrupted
from gateway.upstream.link import Tell

_SESSION = b"mcp-session-id"


async def serve(gateway: Gateway, http: Http, principal: Principal, address: Address) -> None:
    """Answer one request at an MCP endpoint; every refusal is a JSON-RPC error with its status."""
    try:
        if address.server is not None:
            await _known(gateway, principal, address.server)
        match http.method:
            case "POST":
                await _post(gateway, http, principal, address)
            case "GET":
                await own_stream.serve(gateway, http, principal, address, _placed(http))
            case "DELETE":
                await _end(gateway, http, principal, address)
            case method:
                raise MethodNotAllowed(method, ("POST", "GET", "DELETE"))
    except Refused as error:
        await _refuse(http, None, error.refusal)
    except GatewayError as error:
        log_refusal(http, error)
        await send_failure(http.send, error)


async def _refuse(http: Http, id: str | int | None, refusal: Refusal) -> None:
    failure = Failure(id, refusal.code, refusal.message, refusal.data)
    await send_bytes(http.send, refusal.status, encode(failure))


async def rpc(gateway: Gateway, http: Http, principal: Principal, table: str, body: bytes | None = None) -> None:
    """Answer JSON-RPC outside MCP: no session, no revision; a hang-up cancels."""
    try:
        how = accepts(http.headers)
        if body is None:
            body = await read_body(http, gateway.settings.max_body, gateway.settings.body_seconds)
        message = decode(body)
        if isinstance(message, Batch):
            check_batch(message, gateway.settings.max_batch)
    except GatewayError as error:
        log_refusal(http, error)
        await send_failure(http.send, error)
        return
    if isinstance(message, Request):
        call = Call(gateway, principal, gateway.sync.catalogue, message, request_id=http.request_id)
        await _answer(http, how, table, call, cancels=True)
    elif isinstance(message, Batch):
        call = Call(gateway, principal, gateway.sync.catalogue, _NOBODY, request_id=http.request_id)
        await _answer_batch(http, how, table, call, message)
    else:
        await send_empty(http.send, 202)


_NOBODY = Request(0, "")


async def _post(gateway: Gateway, http: Http, principal: Principal, address: Address) -> None:
    check_json(http)
    how = accepts(http.headers)
    message = decode(await read_body(http, gateway.settings.max_body, gateway.settings.body_seconds))
    with refused_as(message):
        await _take(gateway, http, principal, address, how, message)


@contextmanager
def refused_as(message: Message | Batch) -> Iterator[None]:
    """Give a refusal the id of the request that it refuses."""
    try:
        yield
    except GatewayError as error:
        error.id = _id(message) if error.id is None else error.id
        raise


async def _take(
    gateway: Gateway, http: Http, principal: Principal, address: Address, how: Accepts, message: Message | Batch
) -> None:
    """Place a message, and carry it out."""
    inbound = classify(http.headers, _messages(message))
    if isinstance(inbound, Refusal):
        await _refuse(http, _id(message), inbound)
        return
    call = Call(gateway, principal, gateway.sync.catalogue, _NOBODY, server=address.server, request_id=http.request_id)
    if inbound.opens and isinstance(message, Request):
        call.request = message
        await _open(http, how, call, address)
        return
    conversation = call.conversation = await address.conversation(gateway, inbound, principal)
    version = call.version = conversation.session.version
    call.reaches = how is not Accepts.JSON
    match message:
        case Request():
            call.request = message
            await _answer(http, how, address.table, call, cancels=False)
        case Batch():
            if version not in versions.HAS_BATCHES:
                raise InvalidRequest(f"Batches do not exist in MCP {version}; send one message at a time.")
            check_batch(message, gateway.settings.max_batch)
            await _answer_batch(http, how, address.table, call, message)
        case Notification() | Reply() | Failure():
            await take_note(conversation, message)
            await send_empty(http.send, 202)


async def take_note(conversation: Conversation, message: Notification | Reply | Failure) -> None:
    """Carry out what needs no answer."""
    if isinstance(message, Notification):
        await conversation.notify(message)
    else:
        await conversation.answer(message)


async def _open(http: Http, how: Accepts, call: Call, address: Address) -> None:
    """Carry out `initialize` and mint the session that it opens."""
    message = call.request
    answer = await dispatch(METHODS[address.table], call)
    headers = []
    if isinstance(answer, Reply):
        session = call.gateway.sessions.mint(
            call.principal, address.name, answer.result["protocolVersion"], call.gateway.clock()
        )
        await call.gateway.conversations.open(session, call.principal, address.server, *introduction(message.params))
        headers.append((_SESSION, session.id.encode()))
        call.gateway.telemetry.sessions.inc()
    payload = encode(answer)
    call.done(outcome_of(answer), len(payload))
    if how is Accepts.STREAM:
        payload = encode_event(payload, name="message")
    await send_bytes(
        http.send, 200, payload, how.value.encode() if how is Accepts.STREAM else b"application/json", headers
    )


def _answering(http: Http, how: Accepts, call: Call, pending: Sequence[Id], *, cancels: bool) -> Answer:
    """The answer to a POST; within a session its stream is on record."""
    conversation, gateway = call.conversation, call.gateway
    return Answer(
        http,
        how,
        gateway.settings.keepalive_seconds,
        cancels=cancels,
        record=None if conversation is None else lambda: gateway.event_log.begin(conversation.key, pending),
        primes=call.version in versions.HAS_PRIMING,
    )


async def _answer(http: Http, how: Accepts, table: str, call: Call, *, cancels: bool) -> None:
    id = call.request.id
    async with _answering(http, how, call, [id], cancels=cancels) as answer:
        call.tell = _teller(answer, call)
        payload = await answered(METHODS[table], call)
        status = 404 if call.conversation is not None and call.conversation.ended else 200  # it begins anew
        await answer.finish(lambda: answer.frame(payload, id), lambda: send_bytes(http.send, status, payload))


async def _answer_batch(http: Http, how: Accepts, table: str, call: Call, batch: Batch) -> None:
    """Carry out a batch side by side; notifications have no answer, an empty rest is 202."""

    async def one(entry: Message | InvalidRequest) -> tuple[Id | None, bytes] | None:
        if isinstance(entry, InvalidRequest):
            return entry.id, encode(Failure(entry.id, entry.code, entry.detail))
        if not isinstance(entry, Request):
            if call.conversation is not None:
                try:
                    await take_note(call.conversation, entry)
                except GatewayError as error:
                    log_refusal(http, error)
            return None
        return entry.id, await answered(METHODS[table], replace(call, request=entry))

    pending = [entry.id for entry in batch.entries if isinstance(entry, Request)]
    async with _answering(http, how, call, pending, cancels=call.conversation is None) as answer:
        call.tell = _teller(answer, call)
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(one(entry)) for entry in batch.entries]
        except BaseExceptionGroup as errors:
            if errors.subgroup(ClientLeft) is not None:
                raise ClientLeft from None
            raise
        answers = [found for task in running if (found := task.result()) is not None]
        whole = b"[" + b",".join(payload for _, payload in answers) + b"]"
        await answer.finish(
            lambda: b"".join(answer.frame(payload, id) for id, payload in answers),
            lambda: send_bytes(http.send, 200, whole) if answers else send_empty(http.send, 202),
        )


def _teller(answer: Answer, call: Call) -> Tell:
    """Frames what comes before the answer; at a server's own address the framing mirrors the upstream's."""
    mirrors = call.server is not None

    async def tell(message: Answering | Interrupted | Notification | Request) -> None:
        match message:
            case Answering(streaming):
                if mirrors and streaming:
                    await answer.commit()
            case Interrupted():
                if mirrors and call.version in versions.HAS_PRIMING:
                    await answer.interrupt()
            case _:
                await answer.say(encode(message))

    return tell


async def _end(gateway: Gateway, http: Http, principal: Principal, address: Address) -> None:
    """DELETE: end the session at every worker."""
    session = address.session(gateway, _placed(http), principal)
    await gateway.conversations.end(session)
    await send_empty(http.send, 204)


def _placed(http: Http) -> Inbound:
    """Place a request without a body. Raises Refused."""
    inbound = classify(http.headers, ())
    if isinstance(inbound, Refusal):
        raise Refused(inbound)
    return inbound


class Refused(Exception):
    """The ladder refused the request; `refusal` is ready for the wire."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


async def _known(gateway: Gateway, principal: Principal, name: str) -> None:
    """Let registered servers pass. Raises UnknownServer or ServerDisabled."""
    call = Call(gateway, principal, gateway.sync.catalogue, _NOBODY)
    await call.find(lambda catalogue: catalogue.enabled_server(name, principal))


def check_json(http: Http) -> None:
    """Let a body pass that is declared as JSON. Raises UnsupportedMediaType."""
    content_type = http.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType(content_type[:100])


def check_batch(batch: Batch, limit: int) -> None:
    """Let a batch pass that is not too long. Raises InvalidRequest."""
    if len(batch.entries) > limit:
        raise InvalidRequest(f"A batch has at most {limit} messages (GATEWAY_MAX_BATCH).")


def _messages(message: Message | Batch) -> Sequence[Message]:
    if isinstance(message, Batch):
        return [entry for entry in message.entries if not isinstance(entry, InvalidRequest)]
    return [message]


def _id(message: Message | Batch) -> str | int | None:
    return message.id if isinstance(message, Request) else None
