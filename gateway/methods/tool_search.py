"""MCP's tools where they are not all listed: four that find and call the others (`model/meta_tools`).

What a real tool says comes back as if it had been called directly: progress, questions and errors pass, and log, audit
and limits know the real tool. Names lead where the caller's view says, so nothing is found or called that the caller
may not see. Wrong arguments of the four are tool errors, which a model can mend (MCP 2025-11-25, tools: error
handling).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from gateway.errors import InvalidParams, UnknownTool
from gateway.methods.call import Call
from gateway.methods.results import definition as read_result_definition
from gateway.methods.tool_indexes import Tools
from gateway.model.meta_tools import (
    CALL_READ_TOOL,
    CALL_TOOL,
    DESCRIBE_TOOLS,
    DETAILS,
    FOUND,
    MAX_DESCRIBED,
    MAX_FOUND,
    MAX_QUERY,
    SEARCH_TOOLS,
    definitions,
    instructions,
    names_of,
)
from gateway.model.names import near
from gateway.model.tool_index import Document
from gateway.model.tool_modes import AUTO, SEARCH
from gateway.protocol.messages import Reply, Request, dump, parse

_LINE = 200  # characters of a tool's one line
_PARTS = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
_CALLS = (CALL_READ_TOOL, CALL_TOOL)

CallTool = Callable[..., Awaitable[Reply]]
"""The address's own `tools/call`."""


async def searching(call: Call) -> Tools | None:
    """The tools of the caller's address if they are not all listed there; None in mode `full`, and outside MCP."""
    if call.version is None and call.request.method != "initialize":
        return None
    toolset, settings = call.view.toolset, call.gateway.settings
    mode = call.mode or (None if toolset is None else toolset.spec.mode) or settings.tools_mode
    if mode not in (SEARCH, AUTO):
        return None
    tools = await call.gateway.tool_indexes.of(call.view, call.server)
    return tools if mode == SEARCH or tools.tokens > settings.search_tokens else None


def list_few(call: Call, tools: Tools, reader: str | None) -> Mapping[str, Any]:
    """The list in search mode: the four, what is pinned, and by which name kept results are read (None: not at all)."""
    toolset, names = call.view.toolset, names_of(tools.by_name)
    pinned = () if toolset is None else toolset.spec.pinned
    listed = [dict(tools.by_name[name].item) for name in pinned if name in tools.by_name]
    listed += [] if reader is None else [read_result_definition(reader)]
    result: dict[str, Any] = {"tools": [*definitions(names, len(tools.by_name)), *listed]}
    if renamed := {own: shown for own, shown in names.items() if own != shown}:
        result["_meta"] = {"io.mcp-gateway/renamed": renamed}
    return result


def instructed(text: str | None, tools: Tools) -> str:
    """The instructions of an address in search mode."""
    return " ".join(filter(None, [text, instructions(names_of(tools.by_name))]))


async def call_meta_tool(call: Call, tools: Tools, name: str, arguments: Any, call_tool: CallTool) -> Reply | None:
    """Carry out one of the four; None if the name is another tool's. Raises what the real tool's call does."""
    own = next((own for own, shown in names_of(tools.by_name).items() if shown == name), None)
    if own is None:
        return None
    if not (arguments is None or isinstance(arguments, dict)):
        raise InvalidParams("'arguments' must be an object.", "arguments")
    given: Mapping[str, Any] = arguments or {}
    if own in _CALLS:
        return await _call(call, tools, own, given, call_tool)
    try:
        found = _search(tools, given) if own == SEARCH_TOOLS else _describe(tools, given)
    except InvalidParams as error:
        return _wrong(call, error.detail)
    text = dump(found)
    result = {"content": [{"type": "text", "text": text.decode()}], "structuredContent": parse(text)}
    return Reply(call.request.id, result)


def _wrong(call: Call, text: str) -> Reply:
    """A tool error, which a model sees and can mend."""
    return Reply(call.request.id, {"content": [{"type": "text", "text": text}], "isError": True})


async def _call(call: Call, tools: Tools, own: str, given: Mapping[str, Any], call_tool: CallTool) -> Reply:
    name, arguments = given.get("name"), given.get("arguments")
    if not isinstance(name, str):
        raise InvalidParams("'name' must be a string, the tool's name.", "name")
    call.reached.asked, call.reached.arguments = name, arguments
    if not (arguments is None or isinstance(arguments, dict)):
        raise InvalidParams("'arguments' must be an object.", "arguments")
    shown = names_of(tools.by_name)
    if name in shown.values() and name not in tools.by_name:
        raise InvalidParams(f"{name!r} finds and calls other tools; call it by itself.", "name")
    if own == CALL_READ_TOOL:
        document = tools.find(name)
        if document is not None and not document.target.is_believed("readOnlyHint"):
            return _wrong(call, f"The tool {name[:128]!r} may do more than read; call it with {shown[CALL_TOOL]}.")
        if document is None:
            raise _unknown(tools, name)
    params = {key: value for key, value in call.request.params.items() if key not in ("name", "arguments")}
    params |= {"name": name} | ({} if arguments is None else {"arguments": arguments})
    inner = replace(call, request=Request(call.request.id, call.request.method, params), mode="full")
    return await call_tool(inner, name=name, arguments=arguments)


def _search(tools: Tools, given: Mapping[str, Any]) -> dict[str, Any]:
    _check_names(given, SEARCH_TOOLS, ("query", "limit", "server", "detail"))
    query, limit = given.get("query", ""), given.get("limit", FOUND)
    server, detail = given.get("server"), given.get("detail", DETAILS[0])
    if not isinstance(query, str) or len(query) > MAX_QUERY:
        raise InvalidParams(
            f"'query' must be a text of at most {MAX_QUERY} characters: what is to be done, in a few words."
        )
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_FOUND:
        raise InvalidParams(f"'limit' must be a number from 1 to {MAX_FOUND}.")
    if detail not in DETAILS:
        raise InvalidParams(f"'detail' must be one of {', '.join(DETAILS)}.")
    if server is not None and not (isinstance(server, str) and server in tools.counts):
        raise InvalidParams(f"There is no server {str(server)[:64]!r}; there are {', '.join(list(tools.counts)[:50])}.")
    if query.strip():
        return {"tools": [_found(each, detail) for each in tools.index.search(query, limit, server)]}
    if server is None:
        return {"servers": [_server(name, *found) for name, found in tools.counts.items()]}
    of_server = [each for each in tools.by_name.values() if each.target.server.name == server]
    return {"tools": [_found(each, "brief") for each in of_server[:limit]], "total": len(of_server)}


def _describe(tools: Tools, given: Mapping[str, Any]) -> dict[str, Any]:
    _check_names(given, DESCRIBE_TOOLS, ("names",))
    names = given.get("names")
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names) or len(names) > MAX_DESCRIBED:
        raise InvalidParams(f"'names' must be a list of at most {MAX_DESCRIBED} names of tools.")
    found, unknown = [], []
    for name in names:
        document = tools.find(name)
        if document is None:
            unknown.append(name[:128])
        else:
            found.append(
                {part: document.item[part] for part in _PARTS if part in document.item} | {"name": document.name}
            )
    return {"tools": found} | ({"unknown": unknown} if unknown else {})


def _found(document: Document, detail: str) -> dict[str, Any]:
    item = document.item
    said = item.get("description") or item.get("title") or ""
    shown: dict[str, Any] = {"name": document.name, "description": _line(said if isinstance(said, str) else "")}
    if detail == "schema":
        shown |= {part: item[part] for part in ("inputSchema", "annotations") if part in item}
    return shown


def _server(name: str, server: Any, count: int) -> dict[str, Any]:
    shown = {"server": name, "tools": count}
    said = server.spec.description or server.spec.title
    return shown | {"description": _line(said)} if said else shown


def _line(text: str) -> str:
    """The first sentence, in one line."""
    line = " ".join(text.split())
    end = line.find(". ")
    line = line[: end + 1] if 0 <= end < _LINE else line
    return line if len(line) <= _LINE else f"{line[: _LINE - 1]}…"


def _unknown(tools: Tools, name: str) -> UnknownTool:
    error = UnknownTool(name)
    error.suggest(near(name, tools.by_name))
    return error


def _check_names(given: Mapping[str, Any], tool: str, known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise InvalidParams(f"There is no argument {name[:64]!r}; {tool} takes {', '.join(known)}.")
