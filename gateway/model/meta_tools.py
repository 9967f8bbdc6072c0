"""The tools with which a model finds and calls all others, where these are not listed. Pure.

Their annotations let a client ask before what may destroy something, and pass what only reads: `call_read_tool` calls
only tools that are believed to. A real tool that has one of the names keeps it, and ours gets a suffix.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

SEARCH_TOOLS, DESCRIBE_TOOLS, CALL_READ_TOOL, CALL_TOOL = META_TOOLS = (
    "search_tools", "describe_tools", "call_read_tool", "call_tool",
)  # fmt: skip
MAX_FOUND, FOUND, MAX_DESCRIBED, MAX_QUERY = 25, 8, 10, 500
DETAILS = ("schema", "brief")
_SUFFIX = "_gateway"
_READS = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}


def names_of(taken: Container[str]) -> dict[str, str]:
    """The names under which the four are listed beside real tools that have `taken` names, by our own."""
    found = {}
    for name in META_TOOLS:
        shown = name
        while shown in taken:
            shown += _SUFFIX
        found[name] = shown
    return found


def definitions(names: Mapping[str, str], count: int) -> list[dict[str, Any]]:
    """The four as `tools/list` has them, under these names; `count` tools can be found."""
    call, read = names[CALL_TOOL], names[CALL_READ_TOOL]
    target = {
        "name": {"type": "string", "description": f"from {names[SEARCH_TOOLS]}"},
        "arguments": {"type": "object", "description": "as its inputSchema says"},
    }
    return [
        {
            "name": names[SEARCH_TOOLS],
            "description": f"Find tools for a task among the {count} that are there but not listed. Say in a few words "
            f"what is to be done. Call what it finds with {read} or {call}. An empty query lists the servers.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "maxLength": MAX_QUERY},
                    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_FOUND, "default": FOUND},
                    "server": {"type": "string", "description": "only tools of this server"},
                    "detail": {"enum": list(DETAILS), "default": DETAILS[0]},
                },
                "required": ["query"],
            },
            "annotations": {"title": "Search tools", **_READS},
        },
        {
            "name": names[DESCRIBE_TOOLS],
            "description": "The whole definitions of tools by their names.",
            "inputSchema": {
                "type": "object",
                "properties": {"names": {"type": "array", "items": {"type": "string"}, "maxItems": MAX_DESCRIBED}},
                "required": ["names"],
            },
            "annotations": {"title": "Describe tools", **_READS},
        },
        {
            "name": read,
            "description": f"Call a tool that only reads (readOnlyHint). Others are called with {call}.",
            "inputSchema": {"type": "object", "properties": target, "required": ["name"]},
            "annotations": {"title": "Call a tool that reads", "readOnlyHint": True, "openWorldHint": True},
        },
        {
            "name": call,
            "description": "Call any tool by its name.",
            "inputSchema": {"type": "object", "properties": target, "required": ["name"]},
            "annotations": {
                "title": "Call a tool",
                "readOnlyHint": False,
                "destructiveHint": True,
                "openWorldHint": True,
            },
        },
    ]


def instructions(names: Mapping[str, str]) -> str:
    """What a model is told of them at the beginning."""
    return (
        f"Most tools are not listed. Find them with {names[SEARCH_TOOLS]}, then call them with "
        f"{names[CALL_READ_TOOL]} or {names[CALL_TOOL]}."
    )
