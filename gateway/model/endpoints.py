"""Where MCP is spoken, as sessions know it (MCP 2025-11-25, basic, transports: the MCP endpoint)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """All servers' (`/mcp`, `/sse`), one server's own, or a toolset's. `name` is what its sessions are bound to."""

    name: str
    server: str | None = None
    toolset: str | None = None
