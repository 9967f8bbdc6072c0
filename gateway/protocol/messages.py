"""JSON-RPC messages, from bytes and back.

Knows JSON-RPC 2.0 and the limits of JSON here; nothing of MCP's methods, HTTP or sockets.
Source: https://www.jsonrpc.org/specification; MCP 2025-11-25, basic, messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.errors import InvalidRequest, ParseError

Id = str | int
_IDS = frozenset({int, str})
Params = Mapping[str, Any]


# Messages are values that nobody changes. They are not frozen, since that makes each take three times as long (1.1 us
# instead of 0.35), and a call is made of six.


@dataclass(slots=True)
class Request:
    """A method to carry out; the other side waits for an answer with this id."""

    id: Id
    method: str
    params: Params = field(default_factory=dict)


@dataclass(slots=True)
class Notification:
    """A method to take note of; it has no answer."""

    method: str
    params: Params = field(default_factory=dict)


@dataclass(slots=True)
class Reply:
    """A result; `raw` is its JSON as it came, where it may be passed on as it is."""

    id: Id
    result: Any
    raw: bytes | memoryview | None = None


@dataclass(slots=True)
class Failure:
    """A JSON-RPC error; `id` is None where the request's could not be read."""

    id: Id | None
    code: int
    message: str
    data: Any = None


Message = Request | Notification | Reply | Failure


@dataclass(frozen=True, slots=True)
class Batch:
    """Several messages in one body; each entry is a message or why it is none."""

    entries: tuple[Message | InvalidRequest, ...]


# An envelope as the SDKs write it (Python's and TypeScript's order of keys), so that the result can be cut
# out of the bytes. The cut is proven by parsing it alone: a hostile order of keys then fails to parse.
_REPLY_PYTHON = re.compile(
    rb'\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(-?\d{1,15}|"[^"\\\x00-\x1f]{0,255}")\s*,\s*"result"\s*:\s*(?=\{)'
)
_REPLY_TYPESCRIPT = re.compile(rb'\{\s*"result"\s*:\s*(?=\{)')
_TAIL_TYPESCRIPT = re.compile(
    rb'\}\s*,\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(-?\d{1,15}|"[^"\\\x00-\x1f]{0,255}")\s*\}\s*\Z'
)
_TAIL_WINDOW = 400
_DEPTH = 246
_SHALLOW = 2 * _DEPTH  # bytes: no more of them can't be nested that deeply
_TIMES = orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS
_DIGITS = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_LONG = b"0" * 19
_LARGE = 4096
_HUGE = 64 << 10  # bytes of a body whose result is not copied out of it


def parse(body: bytes) -> Any:
    """Read one JSON text. Raises ParseError, also for an integer that 64 bits can't hold."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ParseError(f"The body is not valid JSON: {error}.") from None
    if _has_long_digits(body):
        _refuse_large_integers(body)
    if len(body) > _SHALLOW and _may_be_deep(body):
        _refuse_depth(value)
    return value


def decode(body: bytes) -> Message | Batch:
    """Read one message or a batch. Raises ParseError or InvalidRequest."""
    value = parse(body)
    return _message(value) if type(value) is dict else from_json(value)


def from_json(value: Any) -> Message | Batch:
    """Recognize a message, or a batch, in decoded JSON. Raises InvalidRequest."""
    if isinstance(value, list):
        if not value:
            raise InvalidRequest("A batch needs at least one message.")
        return Batch(tuple(_entry(each) for each in value))
    return _message(value)


def decode_answer(body: bytes) -> Message | Batch:
    """Read a message of an upstream, keeping a reply's result bytes for `encode`.

    Raises ParseError or InvalidRequest.
    """
    if reply := _cut_reply(body):
        return reply
    return decode(body)


def encode(message: Message) -> bytes:
    """Write one message as a line of JSON; a reply's raw result is spliced in as it is."""
    if type(message) is Reply and message.raw is not None:
        return b"".join((b'{"jsonrpc":"2.0","id":', orjson.dumps(message.id), b',"result":', message.raw, b"}"))
    return orjson.dumps(to_json(message), option=_TIMES)


def dump(value: Any) -> bytes:
    """Write JSON, with times in UTC as RFC 3339 has them."""
    return orjson.dumps(value, option=_TIMES)


def to_json(message: Message) -> dict[str, Any]:
    """The message as JSON; a raw result becomes a fragment, which only `encode` can write."""
    match message:
        case Request():
            return {"jsonrpc": "2.0", "id": message.id, "method": message.method, "params": message.params}
        case Notification():
            return {"jsonrpc": "2.0", "method": message.method, "params": message.params}
        case Reply():
            result = message.result if message.raw is None else orjson.Fragment(bytes(message.raw))
            return {"jsonrpc": "2.0", "id": message.id, "result": result}
        case Failure():
            error: dict[str, Any] = {"code": message.code, "message": message.message}
            if message.data is not None:
                error["data"] = message.data
            return {"jsonrpc": "2.0", "id": message.id, "error": error}


def _entry(value: Any) -> Message | InvalidRequest:
    try:
        return _message(value)
    except InvalidRequest as error:
        return error


def _message(value: Any) -> Message:
    if not isinstance(value, dict):
        raise InvalidRequest("A JSON-RPC message is a JSON object.")
    id = value.get("id")
    if type(id) in _IDS and value.get("jsonrpc") == "2.0":  # most of all are this, and need no more questions
        method, params = value.get("method"), value.get("params")
        if type(method) is str and type(params) is dict:
            return Request(id, method, params)  # type: ignore[arg-type]  # its type was looked up
    if isinstance(id, bool) or not (id is None or isinstance(id, str | int)):
        raise InvalidRequest("The id must be a string or an integer.")
    if value.get("jsonrpc") != "2.0":
        raise InvalidRequest('A JSON-RPC message has "jsonrpc": "2.0".', id)
    if "method" in value:
        method, params = value["method"], value.get("params")
        if not isinstance(method, str):
            raise InvalidRequest("The method must be a string.", id)
        if "id" in value and id is None:
            raise InvalidRequest("The id must be a string or an integer; leave it out of a notification.")
        if not (params is None or isinstance(params, dict)):
            raise InvalidRequest("The params must be an object.", id)
        return Notification(method, params or {}) if id is None else Request(id, method, params or {})
    if "result" in value and "error" not in value and id is not None:
        return Reply(id, value["result"])
    if "error" in value and "result" not in value:
        return _failure(value["error"], id)
    raise InvalidRequest("The message has neither a method nor exactly one of result and error.", id)


def _failure(error: Any, id: Id | None) -> Failure:
    match error:
        case {"code": int(code), "message": str(message)}:
            return Failure(id, code, message, error.get("data"))
    raise InvalidRequest("The error needs an integer code and a message.", id)


def _cut_reply(body: bytes) -> Reply | None:
    if head := _REPLY_PYTHON.match(body):
        body = body.rstrip(b" \t\r\n")
        id, start, stop = head[1], head.end(), len(body) - 1
        if not body.endswith(b"}"):
            return None
    elif (head := _REPLY_TYPESCRIPT.match(body)) and (tail := _TAIL_TYPESCRIPT.search(body, len(body) - _TAIL_WINDOW)):
        id, start, stop = tail[1], head.end(), tail.start() + 1
    else:
        return None
    if body.find(b"\n", start, stop) >= 0 or body.find(b"\r", start, stop) >= 0 or _has_long_digits(body):
        return None
    raw = body[start:stop] if len(body) < _HUGE else memoryview(body)[start:stop]
    try:
        result = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if len(body) > _SHALLOW and _may_be_deep(body):
        _refuse_depth(result)
    return Reply(orjson.loads(id), result, raw)


def _has_long_digits(body: bytes) -> bool:
    """Whether there may be an integer that 64 bits can't hold: 19 digits in a row.

    Every digit becomes a 0, and 19 of them are searched for: 0.2 us for 200 bytes, where a pattern takes 2.2. Of 19
    bytes in a row each 19th is one, so that a large body without a digit at such a place has no need of that.
    """
    if len(body) > _LARGE and b"0" not in body[18::19].translate(_DIGITS):
        return False
    return _LONG in body.translate(_DIGITS)


def _may_be_deep(body: bytes) -> bool:
    """Whether there are as many brackets as it takes to be nested too deeply."""
    return body.count(b"[") + body.count(b"{") > _DEPTH


def _refuse_depth(value: Any) -> None:
    """Refuse what could be read but not written again: orjson writes 254 levels, and ours come on top."""
    try:
        orjson.dumps([[[[[[[[value]]]]]]]])
    except orjson.JSONEncodeError:
        raise ParseError(f"The body is nested more than {_DEPTH} levels deep.") from None


def _refuse_large_integers(body: bytes) -> None:
    def integer(text: str) -> None:
        if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 64:
            raise ParseError(f"The integer {text[:24]}{'…' * (len(text) > 24)} does not fit into 64 bits.")

    try:
        json.loads(body, parse_int=integer)
    except RecursionError:
        raise ParseError("The body is nested too deeply.") from None
