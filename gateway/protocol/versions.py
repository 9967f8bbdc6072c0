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
WITHOUT_HEADER = V2025_03_26
"""The version of a request with neither header nor session (2025-06-18, transports)."""

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
}
"""What a client may ask for, and in which revisions."""

SERVER_NOTIFICATIONS: Mapping[str, frozenset[str]] = {
    "notifications/progress": _ALL,
    "notifications/message": _ALL,
    "notifications/tools/list_changed": _ALL,
    "notifications/prompts/list_changed": _ALL,
    "notifications/resources/list_changed": _ALL,
}
"""What may be told to a client, and in which revisions."""

AGGREGATE_CAPABILITIES: Mapping[str, Any] = {
    "tools": {"listChanged": True},
    "resources": {"listChanged": True},
    "prompts": {"listChanged": True},
    "completions": {},
}
"""What the gateway itself can do at `/mcp`."""


def forwardable(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """Cut an upstream's capabilities down to what the per-server address passes on."""
    passed = {
        name: dict(value)
        for name, value in capabilities.items()
        if name in AGGREGATE_CAPABILITIES and isinstance(value, Mapping)
    }
    if "resources" in passed:
        passed["resources"].pop("subscribe", None)
    return passed


def allows(method: str, version: str) -> bool:
    """Tell whether a client of this revision may call the method."""
    return version in CLIENT_METHODS.get(method, ())


def negotiate(requested: str) -> str:
    """Answer `initialize`: the requested revision where we speak it, else our latest with a handshake."""
    return requested if requested in HANDSHAKE else LATEST_HANDSHAKE
