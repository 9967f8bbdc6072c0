"""Which revision and which session a message at an MCP address belongs to: one pure ladder.

Decides from headers and message alone; the session id is handed on unverified. Later code never asks again.
Source: MCP 2025-11-25, basic, transports; 2026-07-28, versioning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.protocol import versions
from gateway.protocol.messages import Message, Notification, Request

_VERSION_META = "io.modelcontextprotocol/protocolVersion"
_ROUTING = ("mcp-protocol-version", "mcp-session-id", "mcp-method", "mcp-name")

HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022


class Headers(Protocol):
    """What the ladder needs of a header collection (starlette's `Headers` has it)."""

    def getlist(self, key: str) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message that may come in. `version` is None where the session's own holds."""

    version: str | None
    session_id: str | None
    opens: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message may not come in, ready for the wire."""

    status: int
    code: int
    message: str
    data: Any = None


def classify(headers: Headers, messages: Sequence[Message]) -> Inbound | Refusal:
    """Place a body (one message, or those of a batch), or refuse it."""
    for name in _ROUTING:
        if len(headers.getlist(name)) > 1:
            return Refusal(400, HEADER_MISMATCH, f"The header {name} was sent more than once.")
    version = _first(headers, "mcp-protocol-version")
    modern = next((asked for message in messages if (asked := _modern_meta(message))), None)
    if modern is not None and version is None:
        return Refusal(
            400,
            HEADER_MISMATCH,
            "A request with a protocolVersion in _meta needs the header MCP-Protocol-Version with the same value.",
        )
    if version is not None and version not in versions.HANDSHAKE:
        return _unsupported(version)
    if modern is not None:
        return _unsupported(modern)
    opens = any(isinstance(message, Request) and message.method == "initialize" for message in messages)
    if opens and len(messages) > 1:
        return Refusal(400, -32600, "initialize must not be part of a batch.")
    return Inbound(version, None if opens else _first(headers, "mcp-session-id"), opens)


def _first(headers: Headers, name: str) -> str | None:
    values = headers.getlist(name)
    return values[0] if values else None


def _modern_meta(message: Message) -> str | None:
    if isinstance(message, Request | Notification):
        meta = message.params.get("_meta")
        if isinstance(meta, Mapping) and isinstance(version := meta.get(_VERSION_META), str):
            return None if version in versions.HANDSHAKE else version
    return None


def _unsupported(requested: str) -> Refusal:
    return Refusal(
        400,
        UNSUPPORTED_VERSION,
        f"Unsupported protocol version {requested[:40]!r}.",
        {"supported": list(versions.SUPPORTED), "requested": requested[:40]},
    )
