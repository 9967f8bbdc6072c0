"""JSON-RPC messages, from bytes and back.

Knows JSON-RPC 2.0 and the limits of JSON here; nothing of MCP's methods, HTTP or sockets.
Source: https://www.jsonrpc.org/specification; MCP 2025-11-25, basic, messages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from gateway.errors import GatewayError, InvalidRequest, ParseError
from gateway.protocol.large_results import LARGE, Large, checked

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
    """A result; `raw` is its JSON as it came, where it may be passed on as it is; `whole` the message around it.

    The `result` of a large one is made when somebody asks for it, and that raises GatewayError for what is nested too
    deeply, or a number that is too large. Who only needs to know what `large` says does not ask.
    """

    id: Id
    result: Any
    raw: bytes | memoryview | None = None
    large: Large | None = None
    whole: bytes | None = field(default=None, compare=False, repr=False)

    @classmethod
    def unread(cls, id: Id, raw: memoryview, large: Large, whole: bytes | None = None) -> Reply:
        """A reply without its `result`."""
        reply = cls.__new__(cls)
        reply.id, reply.raw, reply.large, reply.whole = id, raw, large, whole
        return reply

    if not TYPE_CHECKING:  # a type checker would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            """Called for an attribute that is not set: the result of a large reply."""
            if name != "result" or self.large is None:
                raise AttributeError(name)
            try:
                self.result = orjson.loads(self.raw)
            except orjson.JSONDecodeError as error:
                raise GatewayError(f"The server's result can't be read: {error}.") from None
            return self.result

    def under(self, id: Id) -> Reply:
        """The same result, as the answer to another request."""
        if self.large is not None and self.raw is not None:
            return Reply.unread(id, memoryview(self.raw), self.large)
        return Reply(id, self.result, self.raw)  # what is `whole` has the other id

    @property
    def is_tool_error(self) -> bool:
        """Whether a tool says that it failed (MCP 2025-11-25, tools, error handling)."""
        if self.large is not None:
            return self.large.is_error
        return isinstance(self.result, dict) and self.result.get("isError") is True


@dataclass(slots=True)
class Failure:
    """A JSON-RPC error; `id` is None where the request's could not be read."""

    id: Id | None
    code: int
    message: str
    data: Any = None

    def under(self, id: Id) -> Failure:
        """The same error, as the answer to another request."""
        return Failure(id, self.code, self.message, self.data)


Message = Request | Notification | Reply | Failure


@dataclass(frozen=True, slots=True)
class Batch:
    """Several messages in one body; each entry is a message or why it is none."""

    entries: tuple[Message | InvalidRequest, ...]


# An envelope as the SDKs write it (Python's and TypeScript's order of keys), so that the result can be cut
# out of the bytes. The cut is proven by parsing it alone: a hostile order of keys then fails to parse.
_REPLY_PYTHON = re.compile(
    rb'\{[ \t]*"jsonrpc"[ \t]*:[ \t]*"2\.0"[ \t]*,[ \t]*"id"[ \t]*:[ \t]*(-?\d{1,15}|"[^"\\\x00-\x1f]{0,255}")'
    rb'[ \t]*,[ \t]*"result"[ \t]*:[ \t]*(?=\{)'
)
_REPLY_TYPESCRIPT = re.compile(rb'\{[ \t]*"result"[ \t]*:[ \t]*(?=\{)')
_TAIL_TYPESCRIPT = re.compile(
    rb'\}[ \t]*,[ \t]*"jsonrpc"[ \t]*:[ \t]*"2\.0"[ \t]*,[ \t]*"id"[ \t]*:[ \t]*'
    rb'(-?\d{1,15}|"[^"\\\x00-\x1f]{0,255}")[ \t]*\}\Z'
)
_TAIL_WINDOW = 400
_DEPTH = 246
_DEEP_BYTES = range(2 * _DEPTH + 1, (4 << 20) + 1)  # fewer can't be nested that deeply; of more, see `_refuse_depth`
_SHAPES = bytes(
    ord("0" if chr(byte) in "0123456789" else " " if chr(byte) in "[,: \t\r\n" else "-" if chr(byte) == "-" else "x")
    for byte in range(256)
)
"""Each digit as 0, each byte that may stand before a number as a space."""
_TIMES = orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS
_LONG = b"0" * 19
_ZEROS = re.compile(rb"0*")
_LARGEST = (  # how `_SHAPES` shows an integer that may not fit into 64 bits, and the largest of its length that does
    (b" " + b"0" * 20, b"18446744073709551615"),
    (b" -" + b"0" * 19, b"-9223372036854775808"),
)
_AFTER_NUMBER = frozenset((b"", b"]", b"}", b",", b" ", b"\t", b"\r", b"\n"))
_AFTER_STRING = frozenset((b",", b":", b"]", b"}"))
_ESCAPES = 9  # backslashes before a quote that are looked at
_MAX_LONG_NUMBERS = 40_000
_LOOK = 10  # numbers that are passed over in the time that it takes to look around one
_LARGE = 4096
_HUGE = 64 << 10  # bytes of a body whose result is not copied out of it
SERVER_BATCH = 1_000
"""Messages that one body or event of a server holds at most."""


def parse(body: bytes) -> Any:
    """Read one JSON text. Raises ParseError, also for an integer that 64 bits can't hold."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ParseError(f"The body is not valid JSON: {error}.") from None
    _refuse_large_integers(body)
    if len(body) in _DEEP_BYTES:
        _refuse_depth(body, value)
    return value


def decode(body: bytes, max_batch: int) -> Message | Batch:
    """Read one message, or a batch of at most `max_batch`. Raises ParseError or InvalidRequest."""
    value = parse(body)
    return _message(value) if type(value) is dict else from_json(value, max_batch)


def from_json(value: Any, max_batch: int) -> Message | Batch:
    """Recognize a message, or a batch of at most `max_batch`, in decoded JSON. Raises InvalidRequest."""
    if isinstance(value, list):
        if not value:
            raise InvalidRequest("A batch needs at least one message.")
        if len(value) > max_batch:  # before anything is made of them: an entry takes 40 times what it takes to read it
            raise InvalidRequest(f"A batch has at most {max_batch} messages (GATEWAY_MAX_BATCH); send several.")
        return Batch(tuple(_entry(each) for each in value))
    return _message(value)


def decode_answer(body: bytes) -> Message | Batch:
    """Read a message of an upstream, keeping a reply's result bytes for `encode`.

    Raises ParseError or InvalidRequest, also for a batch of more than SERVER_BATCH, or 4 MiB that are no result.
    """
    if reply := _cut_reply(body):
        return reply
    value = parse(body)
    if isinstance(value, list) and len(value) > SERVER_BATCH:
        raise InvalidRequest(f"A server's batch has at most {SERVER_BATCH} messages.")
    if len(body) >= _DEEP_BYTES.stop and not (isinstance(value, dict) and "result" in value):
        raise InvalidRequest(f"A server's message that is no result has at most {_DEEP_BYTES.stop >> 20} MiB.")
    return from_json(value, SERVER_BATCH)


def encode(message: Message) -> bytes:
    """Write one message as a line of JSON; a reply's raw result is spliced in as it is, or the whole is what came."""
    if type(message) is Reply and message.raw is not None:
        if message.whole is not None:
            return message.whole
        return b"".join((b'{"jsonrpc":"2.0","id":', orjson.dumps(message.id), b',"result":', message.raw, b"}"))
    return dump(to_json(message))


def dump(value: Any) -> bytes:
    """Write JSON, with times in UTC as RFC 3339 has them. Raises GatewayError for what is nested too deeply."""
    try:
        return orjson.dumps(value, option=_TIMES)
    except orjson.JSONEncodeError as error:
        if "ecursion" not in str(error):
            raise
        raise GatewayError("The answer is nested too deeply to be passed on.") from None


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
    body = body.rstrip(b" \t\r\n")
    if head := _REPLY_PYTHON.match(body):
        id, start, stop = head[1], head.end(), len(body) - 1
        if body[stop - 1 :] != b"}}":
            return None
    elif (head := _REPLY_TYPESCRIPT.match(body)) and (tail := _TAIL_TYPESCRIPT.search(body, len(body) - _TAIL_WINDOW)):
        id, start, stop = tail[1], head.end(), tail.start() + 1
    else:
        return None
    if body.find(b"\n") >= 0 or body.find(b"\r") >= 0:
        return None
    try:
        known: Id = orjson.loads(id)
    except orjson.JSONDecodeError:  # 007, or no UTF-8
        return None
    if len(body) >= LARGE and (reply := _large_reply(body, known, start, stop)) is not None:
        return reply
    raw = body[start:stop] if len(body) < _HUGE else memoryview(body)[start:stop]
    try:
        result = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if len(body) < _DEEP_BYTES.stop:
            return None
        # to read it again would take too long
        raise ParseError(f"The body is not valid JSON, or has members after its result: {error}.") from None
    _refuse_large_integers(body)
    if len(body) in _DEEP_BYTES:
        _refuse_depth(body, result)
    return Reply(known, result, raw, None, body)


def _large_reply(body: bytes, id: Id, start: int, stop: int) -> Reply | None:
    """A large reply, as it came; None if it has to be read."""
    raw = memoryview(body)[start:stop]
    large = checked(raw)
    if large is None:
        return None
    _refuse_large_integers(body)
    return Reply.unread(id, raw, large, body)


def _refuse_depth(body: bytes, value: Any) -> None:
    """Refuse what could be read but not written again: orjson writes 254 levels, and ours come on top.

    A body of more than 4 MiB is not asked, since that would take too long, nor is a large result that is not read: most
    are passed on as they came, and `dump` refuses what can't be written.
    """
    if body.count(b"[") + body.count(b"{") > _DEPTH:
        try:
            orjson.dumps([[[[[[[[value]]]]]]]])
        except orjson.JSONEncodeError:
            raise ParseError(f"The body is nested more than {_DEPTH} levels deep.") from None


def _refuse_large_integers(body: bytes) -> None:
    """Refuse an integer that 64 bits can't hold, which orjson reads as a float. The body is valid JSON, no scalar.

    Every digit becomes a 0, and 19 of them in a row are searched for: 0.2 us for 200 bytes, where a pattern takes 2.2.
    Of 19 bytes in a row each 19th is one, so that a large body without a digit at such a place has no need of that.
    """
    if len(body) > _LARGE and b"0" not in body[18::19].translate(_SHAPES):
        return
    shapes = body.translate(_SHAPES)
    if shapes.find(_LONG) >= 0:
        for shape, largest in _LARGEST:
            _refuse_above(largest, shape, body, shapes)


def _refuse_above(largest: bytes, shape: bytes, body: bytes, shapes: bytes) -> None:
    """Refuse an integer that is as long as `largest` or longer, and does not fit, unless it is part of a string.

    Only what stands where a number may stand is looked at; what is in a string is passed over up to the next quote.
    So most of the work is that of `bytes`, and the rest is bounded.
    """
    quotes, passed = _Quotes(body), 0
    start = shapes.find(shape)
    while start >= 0:
        end = start + len(shape)
        if shapes[end : end + 1] == b"0" or body[start + 1 : end] > largest:
            passed += _LOOK
            end = _ZEROS.match(shapes, end).end()  # type: ignore[union-attr]  # it matches anything
            if body[end : end + 1] in _AFTER_NUMBER:
                if not quotes.are_open(start + 1):
                    number = body[start + 1 : min(end, start + 25)].decode() + "…" * (end - start > 25)
                    raise ParseError(f"The integer {number} does not fit into 64 bits.")
                end = body.find(b'"', end)
        passed += 1
        if passed > _MAX_LONG_NUMBERS:
            raise ParseError(f"The body has more than {_MAX_LONG_NUMBERS} numbers of 19 digits and more.")
        start = shapes.find(shape, end)


class _Quotes:
    """Tells whether places in valid JSON, each after the one before, are in a string. A place follows a separator."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._are_open = False
        self._counted = 0

    def are_open(self, at: int) -> bool:
        """Whether a place is in a string: told by the quote before it, or else by all quotes before it."""
        last = self._body.rfind(b'"', self._counted, at)
        if last > _ESCAPES:
            before = self._body[last - _ESCAPES : last]
            escapes = _ESCAPES - len(before.rstrip(b"\\"))
            if escapes % 2 == 1 and escapes < _ESCAPES:  # only strings have escaped quotes
                return True
            if escapes == 0 and self._body[last + 1 : at].lstrip()[:1] not in _AFTER_STRING:
                return True
        part = self._body[self._counted : at]
        if b"\\\\" in part:
            if len(part) >= _DEEP_BYTES.stop:
                raise ParseError("The body is too long for a number of 20 digits and more after escaped backslashes.")
            part = part.replace(b"\\\\", b"")
        self._are_open ^= (part.count(b'"') - part.count(b'\\"')) % 2 == 1
        self._counted = at
        return self._are_open
