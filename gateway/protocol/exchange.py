"""One talk with an upstream as a state machine: the handshake, ids, progress.

Values in, values out. Whoever holds the wire sends what `outgoing` says and feeds what arrives.
Source: MCP 2025-11-25, basic, lifecycle and utilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.protocol import versions
from gateway.protocol.messages import Failure, Message, Notification, Reply, Request


@dataclass(frozen=True, slots=True)
class Handshake:
    """What an upstream said of itself."""

    version: str
    capabilities: Mapping[str, Any]
    server_info: Mapping[str, Any]
    instructions: str | None


class HandshakeRefused(ValueError):
    """The upstream's answer to `initialize` is not one we can go on with."""


def initialize(id: int, client_info: Mapping[str, Any], capabilities: Mapping[str, Any]) -> Request:
    """The first message to an upstream."""
    return Request(
        id,
        "initialize",
        {
            "protocolVersion": versions.LATEST_HANDSHAKE,
            "capabilities": dict(capabilities),
            "clientInfo": dict(client_info),
        },
    )


INITIALIZED = Notification("notifications/initialized")


def accept(answer: Reply | Failure) -> Handshake:
    """Read the answer to `initialize`. Raises HandshakeRefused."""
    if isinstance(answer, Failure):
        raise HandshakeRefused(f"it refused initialize: {answer.message} ({answer.code})")
    match answer.result:
        case {"protocolVersion": str(version), "capabilities": dict(capabilities), **rest}:
            if version not in versions.HANDSHAKE:
                raise HandshakeRefused(f"it speaks protocol version {version[:40]!r}, which we do not")
            info, instructions = rest.get("serverInfo"), rest.get("instructions")
            return Handshake(
                version,
                capabilities,
                info if isinstance(info, dict) else {},
                instructions if isinstance(instructions, str) else None,
            )
    raise HandshakeRefused("its answer to initialize lacks protocolVersion or capabilities")


@dataclass(frozen=True, slots=True)
class Emit:
    """Pass this on to the caller."""

    notification: Notification


@dataclass(frozen=True, slots=True)
class Changed:
    """The upstream's lists changed."""

    method: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Send this back to the upstream."""

    message: Reply | Failure


@dataclass(frozen=True, slots=True)
class Done:
    """The talk is over; the id is the caller's again."""

    answer: Reply | Failure


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing that concerns this talk."""

    reason: str


Event = Emit | Changed | Answer | Done | Ignored


class Exchange:
    """One request on a shared upstream session: our id and progress token out, the caller's back."""

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

    def cancelled(self, reason: str) -> Notification:
        """What to send upstream when nobody waits any more."""
        return Notification("notifications/cancelled", {"requestId": self._id, "reason": reason})

    def receive(self, message: Message) -> Event:
        """Say what one message of the upstream means."""
        match message:
            case Reply(id=id) if id == self._id:
                return Done(Reply(self._request.id, message.result, message.raw))
            case Failure(id=id) if id == self._id:
                return Done(Failure(self._request.id, message.code, message.message, message.data))
            case Reply() | Failure():
                return Ignored(f"an answer to id {message.id!r}, which is not ours")
            case Request():
                return Answer(_answer(message))
            case Notification():
                return self._notified(message)

    def _notified(self, message: Notification) -> Event:
        match message.method:
            case "notifications/progress":
                if self._token is None or message.params.get("progressToken") != self._id:
                    return Ignored("progress nobody asked for")
                return Emit(Notification(message.method, {**message.params, "progressToken": self._token}))
            case "notifications/message":
                return Emit(message)
            case method if method.endswith("/list_changed"):
                return Changed(method)
        return Ignored(f"{message.method} has no place on a call")


def _answer(request: Request) -> Reply | Failure:
    if request.method == "ping":
        return Reply(request.id, {})
    return Failure(request.id, -32601, f"The client did not declare {request.method}.")
