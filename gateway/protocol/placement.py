"""Which revision and which session a message at an MCP address belongs to: one pure ladder.

Decides from headers and message alone; the session id is handed on unverified. Later code never asks again.
Source: MCP 2025-11-25, basic, transports; 2026-07-28, versioning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import HeaderMismatch, InvalidRequest, UnsupportedVersion
from gateway.protocol import versions
from gateway.protocol.messages import Message, Notification, Request

_VERSION_META = "io.modelcontextprotocol/protocolVersion"
_ROUTING = ("mcp-protocol-version", "mcp-session-id", "mcp-method", "mcp-name")


class Headers(Protocol):
    """What the ladder needs of a header collection (starlette's `Headers` has it)."""

    def getlist(self, key: str) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Placed:
    """A message that may come in. `version` is None where the session's own holds."""

    version: str | None
    session_id: str | None
    opens: bool = False


def place(headers: Headers, messages: Sequence[Message]) -> Placed:
    """Place a body (one message, or those of a batch). Raises HeaderMismatch, UnsupportedVersion or InvalidRequest."""
    for name in _ROUTING:
        if len(headers.getlist(name)) > 1:
            raise HeaderMismatch(f"The header {name} was sent more than once.")
    version = _first(headers, "mcp-protocol-version")
    modern = next((asked for message in messages if (asked := _modern_meta(message))), None)
    if modern is not None and version is None:
        raise HeaderMismatch(
            "A request with a protocolVersion in _meta needs the header MCP-Protocol-Version with the same value."
        )
    if version is not None and version not in versions.HANDSHAKE:
        raise UnsupportedVersion(version, versions.SUPPORTED)
    if modern is not None:
        raise UnsupportedVersion(modern, versions.SUPPORTED)
    opens = any(isinstance(message, Request) and message.method == "initialize" for message in messages)
    if opens and len(messages) > 1:
        raise InvalidRequest("initialize must not be part of a batch.")
    return Placed(version, None if opens else _first(headers, "mcp-session-id"), opens)


def _first(headers: Headers, name: str) -> str | None:
    values = headers.getlist(name)
    return values[0] if values else None


def _modern_meta(message: Message) -> str | None:
    if isinstance(message, Request | Notification):
        meta = message.params.get("_meta")
        if isinstance(meta, Mapping) and isinstance(version := meta.get(_VERSION_META), str):
            return None if version in versions.HANDSHAKE else version
    return None
