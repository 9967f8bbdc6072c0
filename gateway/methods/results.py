"""Results that fit: what becomes of a tool's result under its policy (`model/result_policy`), and reading on.

What is spilled is kept in Redis for its caller, so that any worker reads on; `read_result` is a tool of the gateway's
own, at addresses where a tool may spill. Without Redis a result that would be spilled is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping
from typing import Any

import orjson

from gateway.errors import InvalidParams
from gateway.methods.call import Call
from gateway.model.parts import Target
from gateway.model.result_policy import (
    ERROR,
    SPILL,
    ResultPolicy,
    data_of,
    policy_of,
    preview,
    too_large,
    truncated,
    with_data,
    with_selected,
)
from gateway.model.selection import MAX_EXPRESSION, selected
from gateway.protocol.messages import Reply, dump
from gateway.stores.redis import RedisUnavailable

READ_RESULT = "read_result"
_LIMIT, _MAX_LIMIT = 4_000, 50_000  # characters, or items, of one reading
_ANSWER_BYTES = 64 << 10  # of one reading
_IN_THREAD = 64 << 10  # bytes of a result from which on work on it leaves the loop
_GONE = "There is no result with this 'ref', or it is kept no more: call the tool again."
_SUFFIX = "_gateway"


def reader_name(call: Call) -> str | None:
    """The name under which results are read on at the call's address; None where no tool spills."""
    taken: Container[str] = call.view.public["tools"]
    spills = call.view.spills
    if call.server is not None:
        part = call.view.parts.get(call.server)
        spills = part is not None and part.spills
        taken = {item["name"] for item in part.listed("tools")} if part is not None and spills else ()
    name = READ_RESULT
    while name in taken:
        name += _SUFFIX
    return name if spills else None


def definition(name: str) -> dict[str, Any]:
    """The tool as lists have it."""
    return {
        "name": name,
        "description": "Read on in a result that was too large to be sent as a whole.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "ref": {"type": "string", "description": "as the result says"},
                "select": {
                    "type": "string",
                    "maxLength": MAX_EXPRESSION,
                    "description": "JMESPath, e.g. items[?price > `5`].name",
                },
                "offset": {
                    "type": "integer",
                    "minimum": 0,
                    "default": 0,
                    "description": "items of a list, else characters",
                },
                "limit": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": _MAX_LIMIT,
                    "description": "items or characters; without it what fits into 4 KB",
                },
            },
            "required": ["ref"],
        },
        "annotations": {"title": "Read a result", "readOnlyHint": True, "idempotentHint": True, "openWorldHint": False},
    }


async def forward_or_recall(call: Call, target: Target, params: Mapping[str, Any]) -> Reply:
    """A tool's result from its server, or the one that is kept of the same call. Raises UpstreamError."""
    cache = call.gateway.result_cache
    key = cache.key(target, params, call.principal.id)
    if key is not None and (kept := cache.get(key)) is not None:
        return Reply(call.request.id, kept)
    reply = await call.forward(target.server, params)
    if key is not None:
        cache.put(key, target, reply)
    return reply


async def fitted(call: Call, target: Target, reply: Reply) -> Reply:
    """A tool's result as its policy has it; one without a policy, or that is an error, as it came."""
    policy = None if target.overridden is None else policy_of(target.overridden.override)
    if policy is None or reply.is_tool_error:
        return reply
    size = len(reply.raw) if reply.raw is not None else len(dump(reply.result))
    if policy.select is None and (policy.max_bytes is None or size <= policy.max_bytes):
        return reply
    result = reply.result
    if not isinstance(result, Mapping):
        return reply
    name = reader_name(call) or READ_RESULT
    if size >= _IN_THREAD:
        made = await asyncio.to_thread(_selected, result, policy)
    else:
        made = _selected(result, policy)
    if policy.select is not None:
        size = len(orjson.dumps(made))
    if policy.max_bytes is None or size <= policy.max_bytes or made.get("isError") is True:
        return Reply(reply.id, made)
    if policy.overflow == ERROR:
        return Reply(reply.id, too_large(size, policy.max_bytes))
    if policy.overflow == SPILL and (kept := await _spilled(call, made, size, name)) is not None:
        return Reply(reply.id, kept)
    return Reply(reply.id, truncated(made, size, policy.max_bytes))


def _selected(result: Mapping[str, Any], policy: ResultPolicy) -> dict[str, Any]:
    if policy.select is None:
        return dict(result)
    try:
        return with_selected(result, policy.select)
    except (InvalidParams, orjson.JSONEncodeError) as error:  # the operator's expression, not the caller's: it says why
        why = error.detail if isinstance(error, InvalidParams) else error
        text = f"What is selected of this tool's results can't be: {why}"
        return {"content": [{"type": "text", "text": text}], "isError": True}


async def _spilled(call: Call, result: Mapping[str, Any], size: int, reader: str) -> dict[str, Any] | None:
    """Keep a result; the answer that says so, or None where it can't be kept."""
    spills = call.gateway.spills
    data = data_of(result)
    kept = await asyncio.to_thread(dump, data)
    try:
        ref = await spills.keep(call.principal.id, kept)
    except RedisUnavailable:
        return None
    if ref is None:
        return None
    return await asyncio.to_thread(preview, data, size, ref, reader, spills.seconds)


async def read_result(call: Call, arguments: Any) -> Reply:
    """The tool `read_result`: wrong arguments are a tool's error, which a model can mend."""
    try:
        result = await _read(call, arguments if isinstance(arguments, Mapping) else {})
    except InvalidParams as error:
        result = {"content": [{"type": "text", "text": error.detail}], "isError": True}
    return Reply(call.request.id, result)


async def _read(call: Call, given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in ("ref", "select", "offset", "limit"):
            raise InvalidParams(f"There is no argument {name[:64]!r}; {READ_RESULT} takes ref, select, offset, limit.")
    ref, select = given.get("ref"), given.get("select")
    offset, limit, room = given.get("offset", 0), given.get("limit", _LIMIT), _ANSWER_BYTES
    if "limit" not in given:
        room = _LIMIT  # also of a list: what nobody asked for must not fill a model's context
    if not isinstance(ref, str):
        raise InvalidParams("'ref' must be the text that the result says.")
    if not isinstance(select, str | None):
        raise InvalidParams("'select' must be a JMESPath expression.")
    for name, value, least, most in (("offset", offset, 0, 1 << 40), ("limit", limit, 1, _MAX_LIMIT)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InvalidParams(f"'{name}' must be a number from {least} to {most}.")
    try:
        data = await call.gateway.spills.read(call.principal.id, ref[:64])
    except RedisUnavailable:
        raise InvalidParams("Results that are kept can't be read now: Redis does not answer. Try again.") from None
    if data is None:
        raise InvalidParams(_GONE)
    try:
        return await asyncio.to_thread(_part, data, select, offset, limit, room)
    except orjson.JSONEncodeError as error:
        raise InvalidParams(f"What the expression selects is no JSON: {error}.") from None


def _part(data: bytes, select: str | None, offset: int, limit: int, room: int) -> dict[str, Any]:
    value = orjson.loads(data)
    if select is not None:
        value = selected(select, value)
    if isinstance(value, list):
        return _items(value, offset, limit, room)
    if isinstance(value, dict) and len(orjson.dumps(value)) <= min(limit, _ANSWER_BYTES) and offset == 0:
        return with_data(value)
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    part = text[offset : offset + limit]
    return _page(part, offset + len(part), len(text), "characters")


def _items(items: list[Any], offset: int, limit: int, room: int) -> dict[str, Any]:
    """A page of a list, of as many items as fit into so many bytes, and one at least."""
    found: list[bytes] = []
    for item in items[offset : offset + limit]:
        text = orjson.dumps(item)
        room -= len(text) + 1
        if room < 0 and found:
            break
        found.append(text[:_ANSWER_BYTES])
    return _page(f"[{b','.join(found).decode(errors='ignore')}]", offset + len(found), len(items), "items")


def _page(text: str, end: int, total: int, what: str) -> dict[str, Any]:
    more = f"\n(the next begin at offset {end:,} of {total:,} {what})".replace(",", "") if end < total else ""
    meta: dict[str, Any] = {"total": total} | ({"next_offset": end} if end < total else {})
    return {"content": [{"type": "text", "text": text + more}], "_meta": {"io.mcp-gateway/result": meta}}
