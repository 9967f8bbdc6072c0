"""JSON-RPC over HTTP: MCP's endpoints with their sessions, and `/rpc` without.

Reads a body, places it (`inbound`), dispatches it (`methods`) and frames the answer. Source: MCP 2025-11-25, basic,
transports.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from gateway.answers import Answer, stream
from gateway.call import Call, outcome_of
from gateway.context import Gateway
from gateway.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    SessionNotFound,
    UnsupportedMediaType,
)
from gateway.methods import METHODS, answered, dispatch
from gateway.model.auth import Principal
from gateway.model.catalogue import Catalogue
from gateway.model.sessions import Session
from gateway.pool import Tell
from gateway.protocol import versions
from gateway.protocol.inbound import Inbound, Refusal, classify
from gateway.protocol.messages import (
    Batch,
    Failure,
    Message,
    Notification,
    Reply,
    Request,
    decode,
    encode,
)
from gateway.protocol.sse import KEEP_ALIVE, encode_event
from gateway.replies import (
    Accepts,
    Http,
    accepted,
    accepts,
    log_refusal,
    read_body,
    send_bytes,
    send_empty,
    send_failure,
)
from gateway.tasks import end
from gateway.upstream.base import Answering

_SESSION = b"mcp-session-id"
_SECOND_SECONDS = 0.2
_LISTS = {"tools": "tools", "prompts": "prompts", "resources": "resources", "templates": "resources"}


@dataclass(frozen=True, slots=True)
class Address:
    """An MCP endpoint: the aggregate (`server` None) or one server's."""

    server: str | None

    @property
    def table(self) -> str:
        return "aggregate" if self.server is None else "server"

    @property
    def name(self) -> str:
        """What a session is bound to."""
        return "/mcp" if self.server is None else f"/mcp/servers/{self.server}/mcp"


async def serve(gateway: Gateway, http: Http, principal: Principal, address: Address) -> None:
    """Answer one request at an MCP endpoint; every refusal is a JSON-RPC error with its status."""
    try:
        if address.server is not None:
            await _known(gateway, principal, address.server)
        match http.method:
            case "POST":
                await _post(gateway, http, principal, address)
            case "GET":
                await _listen(gateway, http, principal, address)
            case "DELETE":
                await _end(gateway, http, principal, address)
            case method:
                raise MethodNotAllowed(method, ("POST", "GET", "DELETE"))
    except GatewayError as error:
        log_refusal(http, error)
        await send_failure(http.send, error)


async def rpc(gateway: Gateway, http: Http, principal: Principal, table: str, body: bytes | None = None) -> None:
    """Answer JSON-RPC outside MCP: no session, no revision; a hang-up cancels."""
    try:
        how = accepts(http.headers)
        if body is None:
            body = await read_body(http, gateway.settings.max_body, gateway.settings.body_seconds)
        message = decode(body)
        if isinstance(message, Batch):
            _check_batch(message, gateway.settings.max_batch)
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
    content_type = http.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType(content_type[:100])
    how = accepts(http.headers)
    message = decode(await read_body(http, gateway.settings.max_body, gateway.settings.body_seconds))
    inbound = classify(http.headers, _messages(message))
    if isinstance(inbound, Refusal):
        failure = Failure(_id(message), inbound.code, inbound.message, inbound.data)
        await send_bytes(http.send, inbound.status, encode(failure))
        return
    call = Call(gateway, principal, gateway.sync.catalogue, _NOBODY, server=address.server, request_id=http.request_id)
    if inbound.opens and isinstance(message, Request):
        call.request = message
        await _open(http, how, call, address)
        return
    session = _session(gateway, inbound, principal, address)
    call.version = session.version
    match message:
        case Request():
            call.request = message
            await _answer(http, how, address.table, call, cancels=False)
        case Batch():
            if session.version not in versions.HAS_BATCHES:
                raise InvalidRequest(f"Batches do not exist in MCP {session.version}; send one message at a time.")
            _check_batch(message, gateway.settings.max_batch)
            await _answer_batch(http, how, address.table, call, message)
        case Notification() | Reply() | Failure():
            await send_empty(http.send, 202)


async def _open(http: Http, how: Accepts, call: Call, address: Address) -> None:
    """Carry out `initialize` and mint the session that it opens."""
    answer = await dispatch(METHODS[address.table], call)
    headers = []
    if isinstance(answer, Reply):
        session = call.gateway.sessions.mint(
            call.principal, address.name, answer.result["protocolVersion"], call.gateway.clock()
        )
        headers.append((_SESSION, session.id.encode()))
        call.gateway.telemetry.sessions.inc()
    payload = encode(answer)
    call.done(outcome_of(answer), len(payload))
    if how is Accepts.STREAM:
        payload = encode_event(payload, name="message")
    await send_bytes(
        http.send, 200, payload, how.value.encode() if how is Accepts.STREAM else b"application/json", headers
    )


async def _answer(http: Http, how: Accepts, table: str, call: Call, *, cancels: bool) -> None:
    async with Answer(http, how, call.gateway.settings.keepalive_seconds, cancels=cancels) as answer:
        call.tell = _teller(answer, mirrors=call.server is not None)
        payload = await answered(METHODS[table], call)
        await answer.finish(lambda: encode_event(payload, name="message"), lambda: send_bytes(http.send, 200, payload))


async def _answer_batch(http: Http, how: Accepts, table: str, call: Call, batch: Batch) -> None:
    """Carry out a batch side by side; notifications have no answer, an empty rest is 202."""

    async def one(entry: Message | InvalidRequest) -> bytes | None:
        if isinstance(entry, InvalidRequest):
            return encode(Failure(entry.id, entry.code, entry.detail))
        if not isinstance(entry, Request):
            return None
        return await answered(METHODS[table], replace(call, request=entry))

    async with Answer(http, how, call.gateway.settings.keepalive_seconds, cancels=call.version is None) as answer:
        call.tell = _teller(answer, mirrors=False)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one(entry)) for entry in batch.entries]
        payloads = [payload for task in running if (payload := task.result()) is not None]
        await answer.finish(
            lambda: b"".join(encode_event(payload, name="message") for payload in payloads),
            lambda: (
                send_bytes(http.send, 200, b"[" + b",".join(payloads) + b"]")
                if payloads
                else send_empty(http.send, 202)
            ),
        )


def _teller(answer: Answer, *, mirrors: bool) -> Tell:
    async def tell(message: Answering | Notification) -> None:
        if isinstance(message, Answering):
            if mirrors and message.streaming:
                await answer.commit()
        else:
            await answer.event(encode_event(encode(message), name="message"))

    return tell


async def _listen(gateway: Gateway, http: Http, principal: Principal, address: Address) -> None:
    """GET: the stream on which a client hears that lists changed."""
    types = accepted(http.headers)
    if types and not types & {"text/event-stream", "text/*", "*/*"}:
        raise MethodNotAllowed("GET without 'Accept: text/event-stream'", ("POST", "DELETE"))
    inbound = classify(http.headers, ())
    if isinstance(inbound, Refusal):
        await send_bytes(http.send, inbound.status, encode(Failure(None, inbound.code, inbound.message, inbound.data)))
        return
    session = _session(gateway, inbound, principal, address)

    async def frames() -> AsyncGenerator[bytes, None]:
        catalogue = gateway.sync.catalogue
        yield KEEP_ALIVE  # so that the client sees the stream open
        await asyncio.sleep(_SECOND_SECONDS)
        yield KEEP_ALIVE  # a buffering proxy lets the first pass with the head: this one shows it (`check`)
        while session.id not in gateway.sync.ended_sessions and not gateway.draining.is_set():
            after = await wait_for_change(gateway, catalogue)
            if after is None:
                yield KEEP_ALIVE
                continue
            for kind in _changed(catalogue, after, principal, address):
                note = Notification(f"notifications/{kind}/list_changed")
                yield encode_event(encode(note), name="message")
            catalogue = after

    with gateway.admission.stream(principal), gateway.telemetry.streams.track_inprogress():
        await stream(http, frames)


async def wait_for_change(gateway: Gateway, catalogue: Catalogue) -> Catalogue | None:
    """Wait for another catalogue; None when the keep-alive is due or the worker is on its way out."""
    changing = asyncio.create_task(gateway.sync.changed_since(catalogue))
    leaving = asyncio.create_task(gateway.draining.wait())
    try:
        await asyncio.wait(
            {changing, leaving}, timeout=gateway.settings.keepalive_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        return changing.result() if changing.done() else None
    finally:
        await end((changing, leaving))


def _changed(before: Catalogue, after: Catalogue, principal: Principal, address: Address) -> list[str]:
    """The lists that differ, for one address."""

    def items(catalogue: Catalogue, kind: str) -> list[object]:
        if address.server is None:
            return [item for _, item in catalogue.items(kind, principal)]
        server = catalogue.servers.get(address.server)
        return list(getattr(server.offers, kind)) if server else []

    changed = {public for kind, public in _LISTS.items() if items(before, kind) != items(after, kind)}
    return sorted(changed)


async def _end(gateway: Gateway, http: Http, principal: Principal, address: Address) -> None:
    """DELETE: end the session at every worker."""
    inbound = classify(http.headers, ())
    if isinstance(inbound, Refusal):
        await send_bytes(http.send, inbound.status, encode(Failure(None, inbound.code, inbound.message, inbound.data)))
        return
    session = _session(gateway, inbound, principal, address)
    await gateway.store.end_session(session.id, session.expires)
    await gateway.sync.announce()
    await send_empty(http.send, 204)


async def _known(gateway: Gateway, principal: Principal, name: str) -> None:
    """Let registered servers pass. Raises UnknownServer or ServerDisabled."""
    call = Call(gateway, principal, gateway.sync.catalogue, _NOBODY)
    await call.find(lambda catalogue: catalogue.enabled_server(name, principal))


def _session(gateway: Gateway, inbound: Inbound, principal: Principal, address: Address) -> Session:
    if inbound.session_id is None:
        raise InvalidRequest(
            "The header Mcp-Session-Id is missing: send 'initialize' first and repeat the id it answers with. "
            "POST /rpc takes single calls without a session."
        )
    session = gateway.sessions.read(inbound.session_id, principal, address.name, gateway.clock())
    if session.id in gateway.sync.ended_sessions:
        raise SessionNotFound
    return session


def _check_batch(batch: Batch, limit: int) -> None:
    if len(batch.entries) > limit:
        raise InvalidRequest(f"A batch has at most {limit} messages (GATEWAY_MAX_BATCH).")


def _messages(message: Message | Batch) -> Sequence[Message]:
    if isinstance(message, Batch):
        return [entry for entry in message.entries if not isinstance(entry, InvalidRequest)]
    return [message]


def _id(message: Message | Batch) -> str | int | None:
    return message.id if isinstance(message, Request) else None
