"""Which revision and which session a message at an MCP address belongs to: one pure ladder.

Decides from headers and message alone; the session id is handed on unverified. Later code never asks again.
Source: MCP 2025-11-25, basic, transports; 2026-07-28, versioning.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.errors import HeaderMismatch, InvalidRequest, UnsupportedVersion
from gateway.protocol import versions
from gateway.protocol.headers import Headers
from gateway.protocol.messages import Message, Notification, Request

_VERSION_META = "io.modelcontextprotocol/protocolVersion"
_ASKING = (Request, Notification)
_VERSION, _SESSION = b"mcp-protocol-version", b"mcp-session-id"
_HANDSHAKE = {version.encode(): version for version in versions.HANDSHAKE}
_ROUTING = frozenset({_VERSION, _SESSION, b"mcp-method", b"mcp-name"})


Placed = tuple[str | None, str | None, bool]
"""Of a message that may come in: its revision, None where the session's own holds; its session's id; whether it opens
one. A plain tuple, which is made for each call at a fifth of what an object takes."""


def place(headers: Headers, messages: Sequence[Message]) -> Placed:
    """Place a body (one message, or those of a batch). Raises HeaderMismatch, UnsupportedVersion or InvalidRequest."""
    if headers.is_repeated:
        headers.check_once(_ROUTING)
    values = headers.values
    given, id = values.get(_VERSION), values.get(_SESSION)
    version = None
    if given is not None and (version := _HANDSHAKE.get(given)) is None:
        raise UnsupportedVersion(given.decode("latin-1"), versions.SUPPORTED)
    modern, opens = None, False
    for message in messages:
        if isinstance(message, _ASKING):
            if modern is None and "_meta" in message.params:
                modern = _modern(message.params["_meta"])
            if message.method == "initialize" and isinstance(message, Request):
                opens = True
    if modern is not None:
        if version is None:
            raise HeaderMismatch(
                "A request with a protocolVersion in _meta needs the header MCP-Protocol-Version with the same value."
            )
        raise UnsupportedVersion(modern, versions.SUPPORTED)
    if opens and len(messages) > 1:
        raise InvalidRequest("initialize must not be part of a batch.")
    return version, None if opens or id is None else id.decode("latin-1"), opens


def _modern(meta: object) -> str | None:
    """The revision that a message's `_meta` names, if that is one without a handshake."""
    asked = meta.get(_VERSION_META) if isinstance(meta, dict) else None
    return asked if isinstance(asked, str) and asked not in versions.HANDSHAKE else None
