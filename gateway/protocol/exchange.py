"""One talk with an upstream as a state machine: the handshake, ids, progress.

Values in, values out. The link sends what `outgoing` says and feeds what arrives.
Source: MCP 2025-11-25, basic, lifecycle and utilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.errors import GatewayError
from gateway.protocol import versions
from gateway.protocol.messages import Failure, Id, Message, Notification, Reply, Request, dump

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


@dataclass(frozen=True, slots=True)
class Emit:
    """Pass this on to the caller."""

    notification: Notification


@dataclass(frozen=True, slots=True)
class Changed:
    """One of the upstream's lists changed; `passes` where the caller is told of it at once."""

    notification: Notification
    passes: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """The upstream asks the caller something."""

    request: Request


@dataclass(frozen=True, slots=True)
class SendBack:
    """Send this back to the upstream."""

    message: Reply | Failure


@dataclass(frozen=True, slots=True)
class Done:
    """The talk is over; the answer has the id that the request had upstream."""

    answer: Reply | Failure


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing that concerns this talk."""

    reason: str


Event = Emit | Changed | Ask | SendBack | Done | Ignored


class Talk(Protocol):
    """One request whose answer is a stream: what its messages mean."""

    def receive(self, message: Message) -> Event:
        """Say what one message of the upstream means."""
        ...


def cancelled(id: Id, reason: str) -> Notification:
    """What to send upstream when the answer to a request is wanted no more."""
    return Notification("notifications/cancelled", {"requestId": id, "reason": reason})


class Exchange:
    """One request on a shared upstream session: our id and progress token out, the caller's token back."""

    def __init__(self, request: Request, upstream_id: int, *, wants_progress: bool = False) -> None:
        self._request = request
        self._id = upstream_id
        meta = request.params.get("_meta")
        self._meta: Mapping[str, Any] = meta if isinstance(meta, Mapping) else {}
        self._token = self._meta.get("progressToken", request.id if wants_progress else None)

    def outgoing(self) -> Request:
        """What to send upstream."""
        params = self._request.params
        if self._token is not None:
            params = {**params, "_meta": {**self._meta, "progressToken": self._id}}
        return Request(self._id, self._request.method, params)

    def receive(self, message: Message) -> Event:
        """Say what one message of the upstream means."""
        match message:
            case Reply() | Failure():
                return _answered(message, self._id)
            case Request():
                return SendBack(answer_for_nobody(message))
            case Notification():
                return self._notified(message)

    def _notified(self, message: Notification) -> Event:
        match message.method:
            case "notifications/progress":
                if self._token is None or message.params.get("progressToken") != self._id:
                    return Ignored("progress that was not asked for")
                return Emit(Notification(message.method, {**message.params, "progressToken": self._token}))
            case "notifications/message":
                return Emit(message)
            case method if method.endswith("/list_changed"):
                return Changed(message)
        return Ignored(f"{message.method} has no place on a call")


def upstream_id(id: Id) -> Id:
    """The id of a client's request on its own session with a server: a function of the client's, so that any replica
    can cancel the request."""
    return id if type(id) is int else f"c:{id}"


class OwnExchange:
    """One request on the upstream session of one client: what its stream holds is the client's."""

    def __init__(self, id: Id) -> None:
        self._id = id

    def receive(self, message: Message) -> Event:
        """Say what one message of the upstream means."""
        match message:
            case Reply() | Failure():
                return _answered(message, self._id)
            case Request():
                return read_request(message)
            case Notification():
                return read_notification(message)


def _answered(answer: Reply | Failure, id: Id) -> Done | Ignored:
    """What an answer means to the request with this id."""
    return Done(answer) if answer.id == id else Ignored(f"an answer to id {answer.id!r}, which is not ours")


def read_request(request: Request) -> Ask | SendBack:
    """What a request of an upstream on a client's own session means; a ping is answered here."""
    return SendBack(Reply(request.id, {})) if request.method == "ping" else Ask(request)


def read_notification(notification: Notification) -> Emit | Changed | Ignored:
    """What a notification of an upstream on a client's own session means."""
    if notification.method in versions.LIST_CHANGES:
        return Changed(notification, passes=True)
    if notification.method in versions.SERVER_NOTIFICATIONS:
        return Emit(notification)
    return Ignored(f"{notification.method} is in no revision")


def gateway_id(worker: str, number: int) -> str:
    """The id upstream of a request that the gateway itself makes on a client's session, from any worker."""
    return f"g:{worker}:{number}"


def answer_for_nobody(request: Request) -> Reply | Failure:
    """Answer a server that asks where no client can be asked; a ping is answered as such."""
    if request.method == "ping":
        return Reply(request.id, {})
    return Failure(request.id, -32601, f"The client did not declare {request.method}.")
