"""MCP's endpoints, `/mcp` and those of one server or toolset: one message (or batch) in, its answer or its stream out.

Reads a body, places it (`protocol/placement`), finds its session, invokes the method (`methods/table`) and frames the
answer. Source: MCP 2025-11-25, basic, transports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from functools import lru_cache

from gateway.deadlines import Guard
from gateway.edge import mcp_get
from gateway.edge.request import Accepts, Http
from gateway.edge.response import RawHeaders, Response, log_refusal, send_bytes, send_empty
from gateway.errors import ClientLeft, GatewayError, HeaderMismatch, InvalidRequest, MethodNotAllowed, UnknownName
from gateway.methods.call import Call, failure, invoke
from gateway.methods.services import Gateway
from gateway.methods.table import METHODS
from gateway.methods.views import view_of
from gateway.model.endpoints import Endpoint
from gateway.model.principals import Principal
from gateway.model.tool_modes import asked_mode
from gateway.model.view import View
from gateway.observability.call_log import Reached
from gateway.protocol import versions
from gateway.protocol.messages import Batch, Id, Message, Notification, Request, decode, encode
from gateway.protocol.placement import place
from gateway.protocol.sse import encode_event
from gateway.sessions.session import Session
from gateway.sessions.translation import introduction
from gateway.stores.event_log import Recording

NOBODY = Request(0, "")
"""Stands in for the request of a call that has none yet."""


_AGGREGATE = Endpoint("/mcp")
_JSON = Accepts.JSON
_MAX_KEPT = 128  # characters of a name whose address is kept


async def serve(
    gateway: Gateway, http: Http, principal: Principal, server: str | None = None, toolset: str | None = None
) -> None:
    """MCP: all servers with their public names, or the one that the address names, as if connected directly."""
    if http.method != "POST":
        address = _address(server, toolset)
        await _view(gateway, principal, address)
        await _other(gateway, http, principal, address)
        return
    http.check_json()
    how = http.accepts()
    settings = gateway.settings
    body = http.body_at_hand(settings.max_body)
    if body is None:
        body = await http.read_body(settings.max_body, settings.body_seconds)
    message = decode(body, settings.max_batch)
    try:
        address, view = _AGGREGATE, gateway.sync.catalogue.view(principal.grants)
        if server is not None or toolset is not None:
            address = _address(server, toolset)
            view = _view_at_once(gateway, principal, address) or await _view(gateway, principal, address)
        version, session_id, opens = place(
            http.headers, _messages(message) if isinstance(message, Batch) else (message,)
        )
        if opens and isinstance(message, Request):
            await _initialize(gateway, http, principal, address, view, how, message)
            return
        session = gateway.sessions.known(session_id, principal, address.name)
        if session is None:
            session = await gateway.sessions.find(session_id, principal, address)
        spoken = session.local.record.version
        if version is not None and version != spoken:
            raise _other_version(version, session)
        if isinstance(message, Batch):
            check_batches_exist(spoken)
        elif not isinstance(message, Request):
            await take_note(session, message)
            await send_empty(http, 202)
            return
        response = _InSession(gateway, http, how, message, session)
        call = Call(
            gateway,
            principal,
            view,
            NOBODY if isinstance(message, Batch) else message,
            spoken,
            server,
            session,
            response,
            how is not _JSON,
            request_id=http.request_id,
            guard=http.guard,
            address=http.path,
        )
        if http.query:
            call.mode = asked_mode(http.query)
        table = "aggregate" if server is None else "server"
        if isinstance(message, Batch):
            await answer_batch(http, response, table, call, message)
        else:
            await answer(response, table, call)
    except GatewayError as error:
        if error.id is None and isinstance(message, Request):
            error.id = message.id
        raise


def serve_toolset(gateway: Gateway, http: Http, principal: Principal, slug: str) -> Awaitable[None]:
    """MCP: what a toolset holds of all servers."""
    return serve(gateway, http, principal, toolset=slug)


def _address(server: str | None, toolset: str | None) -> Endpoint:
    """The address of a server's or toolset's name, which may be a caller's invention."""
    return (_kept if len(server or toolset or "") <= _MAX_KEPT else _endpoint)(server, toolset)


def _endpoint(server: str | None, toolset: str | None) -> Endpoint:
    if toolset is not None:
        return Endpoint(f"/mcp/toolsets/{toolset}/mcp", toolset=toolset)
    return _AGGREGATE if server is None else Endpoint(f"/mcp/servers/{server}/mcp", server)


_kept = lru_cache(maxsize=1024)(_endpoint)


def _view_at_once(gateway: Gateway, principal: Principal, address: Endpoint) -> View | None:
    """What the caller sees at an address; None where that is not known here. Raises ServerDisabled, ToolsetDisabled."""
    try:
        view = gateway.sync.catalogue.view(principal.grants, address.toolset)
        if address.server is not None:
            view.enabled_server(address.server)
    except UnknownName:
        return None
    return view


async def _view(gateway: Gateway, principal: Principal, address: Endpoint) -> View:
    """The same, of what may have been made, or granted, a moment ago at another worker.

    Raises UnknownServer, ServerDisabled, UnknownToolset or ToolsetDisabled.
    """
    if address.toolset is not None:
        return await view_of(gateway, principal, address.toolset)
    view, server = gateway.sync.catalogue.view(principal.grants), address.server
    if server is not None:
        call = Call(gateway, principal, view, NOBODY)
        await call.find(lambda view: view.enabled_server(server))
    return view


async def _other(gateway: Gateway, http: Http, principal: Principal, address: Endpoint) -> None:
    """GET: the client's own stream. DELETE: the end of its session."""
    version, id, _ = place(http.headers, ())
    if http.method == "DELETE":
        await gateway.sessions.end(gateway.sessions.read_id(id, principal, address.name))
        await send_empty(http, 204)
        return
    types = http.accepted()
    if types and not types & {"text/event-stream", "text/*", "*/*"}:
        raise MethodNotAllowed("GET without 'Accept: text/event-stream'", ("POST", "DELETE"))
    session = await gateway.sessions.find(id, principal, address)
    if version is not None and version != session.version:
        raise _other_version(version, session)
    await mcp_get.serve(gateway, http, principal, session)


async def take_note(session: Session, message: Message) -> None:
    """Carry out what needs no answer."""
    if isinstance(message, Notification):
        await session.notify(message)
    elif not isinstance(message, Request):
        await session.answer(message)


async def _initialize(
    gateway: Gateway, http: Http, principal: Principal, address: Endpoint, view: View, how: Accepts, message: Request
) -> None:
    """Carry out `initialize` and open the session that it asks for."""
    call = Call(
        gateway,
        principal,
        view,
        message,
        server=address.server,
        request_id=http.request_id,
        address=http.path,
        mode=asked_mode(http.query) if http.query else None,
    )
    outcome, payload = await invoke(METHODS["aggregate" if address.server is None else "server"], call)
    headers: RawHeaders = []
    if outcome.reply is not None:
        version = outcome.reply.result["protocolVersion"]
        opened = introduction(message.params, gateway.settings.max_hello)
        session = await gateway.sessions.open(principal, address, version, *opened)
        headers.append((b"mcp-session-id", session.id.text.encode()))
        gateway.metrics.sessions.inc()
    if how is Accepts.STREAM:
        frame = encode_event(payload, name="message")
        await send_bytes(http, 200, frame, how.value.encode(), headers)
    else:
        await send_bytes(http, 200, payload, headers=headers)


class _InSession(Response):
    """The answer to a message within a session: on record if it is a stream, and a hang-up does not cancel (MCP)."""

    _cancels = False

    def __init__(self, gateway: Gateway, http: Http, how: Accepts, message: Request | Batch, session: Session) -> None:
        Response.__init__(self, http, how, gateway.settings.keepalive_seconds)
        self._event_log = gateway.event_log
        self._message = message
        self._session = session

    def _record(self) -> Recording:
        message, session = self._message, self._session
        entries = message.entries if isinstance(message, Batch) else (message,)
        ids = [each.id for each in entries if isinstance(each, Request)]
        return self._event_log.begin(session.key, ids, principal=session.owner[0])

    def _primes(self) -> bool:
        return self._session.version in versions.HAS_PRIMING

    def _mirrors(self) -> bool:
        """So it is at a server's own address, and at a toolset's."""
        address = self._session.address
        return address.server is not None or address.toolset is not None


async def answer(response: Response, table: str, call: Call) -> None:
    """Carry out one request, and send its answer as JSON, or as the last event of a stream."""
    session = call.session
    with response:
        if response.is_stream:
            await response.commit()
        _, payload = await invoke(METHODS[table], call)
        status = 404 if session is not None and session.ended else 200  # its client begins anew
        await response.finish(payload, call.request.id, status)


async def answer_batch(http: Http, response: Response, table: str, call: Call, batch: Batch) -> None:
    """Carry out a batch side by side; notifications have no answer, an empty rest is 202."""

    async def one(entry: Message | InvalidRequest) -> tuple[Id | None, bytes] | None:
        if isinstance(entry, InvalidRequest):
            return entry.id, encode(failure(entry, entry.id))
        if not isinstance(entry, Request):
            if call.session is not None:
                try:
                    await take_note(call.session, entry)
                except GatewayError as error:
                    log_refusal(http, error)
            return None
        part = replace(call, request=entry, reached=Reached(), guard=Guard(http.alarms))
        _, payload = await invoke(METHODS[table], part)
        return entry.id, payload

    with response:
        if response.is_stream:
            await response.commit()
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(one(entry)) for entry in batch.entries]
        except BaseExceptionGroup as errors:
            if errors.subgroup(ClientLeft) is not None:
                raise ClientLeft from None
            raise
        await response.finish_batch([found for task in running if (found := task.result()) is not None])


def _other_version(said: str, session: Session) -> HeaderMismatch:
    return HeaderMismatch(f"The header MCP-Protocol-Version says {said}; this session speaks {session.version}.")


def check_batches_exist(version: str) -> None:
    """Let a batch pass if the session's revision has batches. Raises InvalidRequest."""
    if version not in versions.HAS_BATCHES:
        raise InvalidRequest(f"Batches do not exist in MCP {version}; send one message at a time.")


def _messages(batch: Batch) -> Sequence[Message]:
    return [entry for entry in batch.entries if not isinstance(entry, InvalidRequest)]
