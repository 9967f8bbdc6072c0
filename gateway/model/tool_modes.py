"""How tools are listed at MCP's addresses: all of them, or a few with which a model finds the others. Pure."""

from __future__ import annotations

from urllib.parse import parse_qsl

from gateway.errors import BadQuery

FULL, SEARCH, AUTO = "full", "search", "auto"
MODES = (FULL, SEARCH, AUTO)


def asked_mode(query: bytes) -> str | None:
    """The mode that a URL asks for (`?tools=…`); None for none. Raises BadQuery."""
    found = [value for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if name == "tools"]
    if not found:
        return None
    if len(found) > 1 or found[0] not in MODES:
        raise BadQuery("'tools' must be full, search or auto, and must stand there once.", "tools")
    return found[0]
