"""What differs between MCP's revisions, as tables.

A revision that is absent from a method's row does not have the method: absence is the gate.
Source: the schema of each revision, https://modelcontextprotocol.io/specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

V2024_11_05 = "2024-11-05"
V2025_03_26 = "2025-03-26"
V2025_06_18 = "2025-06-18"
V2025_11_25 = "2025-11-25"
V2026_07_28 = "2026-07-28"

HANDSHAKE = (V2025_11_25, V2025_06_18, V2025_03_26, V2024_11_05)
SUPPORTED = HANDSHAKE
LATEST_HANDSHAKE = HANDSHAKE[0]
HAS_BATCHES = frozenset({V2024_11_05, V2025_03_26})

_ALL = frozenset(HANDSHAKE)

CLIENT_METHODS: Mapping[str, frozenset[str]] = {
    "initialize": _ALL,
    "ping": _ALL,
    "tools/list": _ALL,
    "tools/call": _ALL,
    "resources/list": _ALL,
    "resources/templates/list": _ALL,
    "resources/read": _ALL,
    "prompts/list": _ALL,
    "prompts/get": _ALL,
    "completion/complete": _ALL,
    "resources/subscribe": _ALL,
    "resources/unsubscribe": _ALL,
    "logging/setLevel": _ALL,
}
"""What a client may ask for, and in which revisions."""

METHODS_OF: Mapping[str, frozenset[str]] = {
    version: frozenset(method for method, since in CLIENT_METHODS.items() if version in since) for version in HANDSHAKE
}
"""The same by revision."""

SERVER_REQUESTS: Mapping[str, tuple[str, frozenset[str]]] = {
    "sampling/createMessage": ("sampling", _ALL),
    "roots/list": ("roots", _ALL),
    "elicitation/create": ("elicitation", frozenset({V2025_06_18, V2025_11_25})),
}
"""What a server may ask of a client: the capability that the client must have declared, and the revisions."""

SERVER_NOTIFICATIONS: Mapping[str, frozenset[str]] = {
    "notifications/cancelled": _ALL,
    "notifications/progress": _ALL,
    "notifications/message": _ALL,
    "notifications/resources/updated": _ALL,
    "notifications/elicitation/complete": frozenset({V2025_11_25}),
    "notifications/tools/list_changed": _ALL,
    "notifications/prompts/list_changed": _ALL,
    "notifications/resources/list_changed": _ALL,
}
"""What may be told to a client, and in which revisions."""

LIST_CHANGES = frozenset(method for method in SERVER_NOTIFICATIONS if method.endswith("/list_changed"))

LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""From the least to the most severe (RFC 5424)."""

HAS_PRIMING = frozenset({V2025_11_25})
"""Where a stream begins with an event that has an id and no data."""

AGGREGATE_CAPABILITIES: Mapping[str, Any] = {
    "tools": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "prompts": {"listChanged": True},
    "completions": {},
    "logging": {},
}
"""What the gateway itself can do at `/mcp`."""

_NOT_PASSED = frozenset({"tasks"})
"""Capabilities that are not passed on: 2025-11-25's experimental tasks stay out."""


def forwardable(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """Cut a side's capabilities down to what is passed on to the other."""
    return {name: value for name, value in capabilities.items() if name not in _NOT_PASSED}


def may_ask(method: str, params: Mapping[str, Any], version: str, capabilities: Mapping[str, Any]) -> bool:
    """Tell whether a server may ask this of a client of the revision that declared the capabilities."""
    capability, since = SERVER_REQUESTS.get(method, ("", frozenset()))
    if version not in since or not isinstance(declared := capabilities.get(capability), Mapping):
        return False
    if method == "elicitation/create" and params.get("mode") == "url":
        return "url" in declared
    return True


def may_tell(method: str, version: str) -> bool:
    """Tell whether a client of this revision may be told of it."""
    return version in SERVER_NOTIFICATIONS.get(method, ())


def negotiate(requested: str) -> str:
    """Answer `initialize`: the requested revision where we speak it, else our latest with a handshake."""
    return requested if requested in HANDSHAKE else LATEST_HANDSHAKE
