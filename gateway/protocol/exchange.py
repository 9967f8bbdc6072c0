"""One talk with an upstream: the handshake, ids, progress, and what a message means that comes before the answer.

Values in, values out: who talks sends what `outgoing` says, and asks what arrives means.
Source: MCP 2025-11-25, basic, lifecycle and utilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import GatewayError
from gateway.protocol import versions
from gateway.protocol.messages import Failure, Id, Notification, Reply, Request, dump

_MAX_SAID = 64 << 10  # what a server says of itself goes into each session's record


@dataclass(frozen=True, slots=True)
class Handshake:
    """What an upstream said of itself."""

    version: str
    capabilities: Mapping[str, Any]
    server_info: Mapping[str, Any]
    instructions: str | None


class HandshakeRefused(ValueError):
    """The upstream's answer to `initialize` is not one we can go on with."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What we say of ourselves, or of the client we speak for, in `initialize`."""

    version: str
    capabilities: Mapping[str, Any]
    client_info: Mapping[str, Any]
    shared: bool = False
    """Whether several callers will use the session side by side."""


def initialize(hello: Hello) -> Request:
    """The first message to an upstream."""
    return Request(
        0,
        "initialize",
        {
            "protocolVersion": hello.version,
            "capabilities": dict(hello.capabilities),
            "clientInfo": dict(hello.client_info),
        },
    )


INITIALIZED = Notification("notifications/initialized")


def accept(answer: Reply | Failure) -> Handshake:
    """Read the answer to `initialize`. Raises HandshakeRefused."""
    if isinstance(answer, Failure):
        raise HandshakeRefused(f"it refused initialize: {answer.message} ({answer.code})")
    try:
        result = answer.result
    except GatewayError as error:
        raise HandshakeRefused(error.detail) from None
    match result:
        case {"protocolVersion": str(version), "capabilities": dict(capabilities), **rest}:
            if version not in versions.HANDSHAKE:
                raise HandshakeRefused(f"it speaks protocol version {version[:40]!r}, which we do not")
            info, instructions = rest.get("serverInfo"), rest.get("instructions")
            server_info = info if isinstance(info, dict) else {}
            if len(dump([capabilities, server_info])) > _MAX_SAID:
                raise HandshakeRefused(f"its capabilities and serverInfo have more than {_MAX_SAID >> 10} KiB")
            said = instructions[:_MAX_SAID] if isinstance(instructions, str) else None
            return Handshake(version, capabilities, server_info, said)
    raise HandshakeRefused("its answer to initialize lacks protocolVersion or capabilities")


# What a message means, made for each: not frozen, which takes three times as long.


@dataclass(slots=True)
class Emit:
    """Pass this on to the caller."""

    notification: Notification


@dataclass(slots=True)
class Changed:
    """One of the upstream's lists changed; `passes` where the caller is told of it at once."""

    notification: Notification
    passes: bool = False


@dataclass(slots=True)
class Ask:
    """The upstream asks the caller something."""

    request: Request


@dataclass(slots=True)
class SendBack:
    """Send this back to the upstream."""

    message: Reply | Failure


@dataclass(slots=True)
class Ignored:
    """Nothing that concerns this talk."""

    reason: str


Event = Emit | Changed | Ask | SendBack | Ignored


def cancelled(id: Id, reason: str) -> Notification:
    """What to send upstream when the answer to a request is wanted no more."""
    return Notification("notifications/cancelled", {"requestId": id, "reason": reason})


# On a session that several callers share a request has our id, and our progress token where its caller has one.


def outgoing(request: Request, id: Id, *, wants_progress: bool = False) -> Request:
    """What to send upstream for a caller's request; `wants_progress` also where the caller has no token."""
    params = request.params
    if (wants_progress or "_meta" in params) and _token(request, wants_progress=wants_progress) is not None:
        params = {**params, "_meta": {**_meta(params), "progressToken": id}}
    return Request(id, request.method, params)


def read_shared(
    message: Notification | Request, request: Request, id: Id, *, wants_progress: bool = False
) -> Emit | Changed | SendBack | Ignored:
    """What a message means that came before the answer to a caller's request, which has this id upstream."""
    if isinstance(message, Request):
        return SendBack(answer_for_nobody(message))
    match message.method:
        case "notifications/progress":
            token = _token(request, wants_progress=wants_progress)
            if token is None or message.params.get("progressToken") != id:
                return Ignored("progress that was not asked for")
            return Emit(Notification(message.method, {**message.params, "progressToken": token}))
        case "notifications/message":
            return Emit(message)
        case method if method.endswith("/list_changed"):
            return Changed(message)
    return Ignored(f"{message.method} has no place on a call")


def _meta(params: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = params.get("_meta")
    return meta if isinstance(meta, Mapping) else {}


def _token(request: Request, *, wants_progress: bool) -> Any:
    return _meta(request.params).get("progressToken", request.id if wants_progress else None)


def upstream_id(id: Id) -> Id:
    """The id of a client's request on its own session with a server: a function of the client's, so that any replica
    can cancel the request."""
    return id if type(id) is int else f"c:{id}"


def read_own(message: Notification | Request) -> Event:
    """What a message of an upstream on a client's own session means; a ping is answered here."""
    if isinstance(message, Request):
        return SendBack(Reply(message.id, {})) if message.method == "ping" else Ask(message)
    if message.method in versions.LIST_CHANGES:
        return Changed(message, passes=True)
    if message.method in versions.SERVER_NOTIFICATIONS:
        return Emit(message)
    return Ignored(f"{message.method} is in no revision")


def gateway_id(worker: str, number: int) -> str:
    """The id upstream of a request that the gateway itself makes on a client's session, from any worker."""
    return f"g:{worker}:{number}"


def answer_for_nobody(request: Request) -> Reply | Failure:
    """Answer a server that asks where no client can be asked; a ping is answered as such."""
    if request.method == "ping":
        return Reply(request.id, {})
    return Failure(request.id, -32601, f"The client did not declare {request.method}.")
