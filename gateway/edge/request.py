"""One HTTP request as it came in, and the way to answer it: the body, what the client accepts, who it reached.

Knows ASGI messages, bounds and headers; nothing of MCP's methods.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from starlette.types import Message as AsgiMessage
from starlette.types import Receive, Scope, Send

from gateway.deadlines import Alarms, Deadline, Guard
from gateway.errors import BodyTimeout, BodyTooLarge, ClientLeft, NotAcceptable, UnsupportedMediaType
from gateway.protocol.headers import Headers

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_JSON = b"application/json"
_DISCARD_SECONDS = 5.0
_SEND_SECONDS = 30.0
_SLOW_BODY, _NOT_READ = object(), object()  # reasons to cut a request's work


class Protocol(Enum):
    """What a caller speaks, which decides how it is refused."""

    REST = "REST"
    JSON_RPC = "JSON-RPC"
    REGISTRY = "the registry's paths"


_REST = Protocol.REST  # by a name of its own: a member's takes four times as long


class Accepts(Enum):
    """What a client takes as an answer to a POST."""

    JSON = "application/json"
    STREAM = "text/event-stream"
    EITHER = "either"


class ListAs(Enum):
    """How a client wants a list: as one document, as a stream that stays, or as one that ends."""

    DOCUMENT = "document"
    LIVE = "live"
    SNAPSHOT = "snapshot"


def request_ids() -> Iterator[str]:
    """Ids that no other worker gives: random bytes of this one, and a number."""
    return map(f"{secrets.token_hex(6)}-{{:x}}".format, itertools.count(1))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all requests of a worker have in common."""

    draining: asyncio.Event
    discard: int = 0
    """How much of a refused body is read, in bytes."""
    alarms: Alarms = field(default_factory=Alarms)
    request_ids: Iterator[str] = field(default_factory=request_ids)


class Http:
    """One HTTP request, and its watched way back.

    A refusal that is sent while the body is still on its way would be lost: the server closes the connection, and a
    proxy in between sees a reset instead of the answer. So a refused body is read to its end first, up to a bound.
    The answer to HEAD is that to GET without its body. While the worker drains, clients are asked for no further
    request on this connection.
    """

    __slots__ = (
        "_answers",
        "_around",
        "_complete",
        "_receive",
        "_send",
        "_server",
        "alarms",
        "finished",
        "guard",
        "headers",
        "method",
        "path",
        "protocol",
        "query",
        "request_id",
        "scope",
        "started",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, around: Surroundings) -> None:
        self.scope = scope
        headers = self.headers = Headers(scope["headers"])
        self.method: str = scope["method"]
        path: str = scope["path"]
        raw_path = scope.get("raw_path")
        if path[-1:] == "/" or scope.get("root_path") or (raw_path and b"%" in raw_path):
            path = _path(scope)
        self.path = path
        self.query: bytes = scope.get("query_string", b"")
        given = headers.values.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            self.request_id = given.decode("ascii")
        else:
            self.request_id = next(around.request_ids)
        self.alarms = alarms = around.alarms
        self.guard = Guard(alarms)
        """What may end the work on this request: for its own task only."""
        self.protocol = _REST
        """The address's, or what the body turns out to be."""
        self.started = False
        self.finished = False
        self._receive = receive
        self._send = send
        try:  # a method's own attribute is had for half of what `getattr` takes
            server, taker = receive.__self__, send.__self__  # type: ignore[attr-defined]
        except AttributeError:
            server, taker = getattr(receive, "__self__", None), None
        self._server: Any = server if hasattr(server, "whole_body") else None
        """Our own server's request (`run/http1_exchange`), which has shorter ways than ASGI's; None under others."""
        self._answers = taker is server and self._server is not None
        """Whether it takes answers as well: who is between may wrap one way, and not the other."""
        self._around = around
        self._complete = False

    def forget_headers(self) -> None:
        """Let go of the request's headers, which have been read, where the answer is a stream that stays open.

        They are in the hands of many (a server's scope, the frames of our coroutines), so that they are emptied in
        place: under our own server, unless it logs them at the end.
        """
        if self._server is not None and not self._server.logs:
            self.headers.raw.clear()
            self.headers.values.clear()

    async def receive(self) -> AsgiMessage:
        """The next part of the body, or that the client left."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._complete = True
        return message

    def call_when_left(self, callback: Callable[[], None]) -> Sequence[asyncio.Task[None]]:
        """Have this called when the client leaves; what is returned is to be ended when nobody wants that any more."""
        if self._server is not None:
            self._server.call_when_left(callback)
            return ()
        return [asyncio.create_task(self._watch(callback))]

    async def _watch(self, callback: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        callback()

    async def send_whole(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send an answer of one piece, from the request's own task. Raises ClientLeft when the client does not read."""
        self.started = True
        if status >= 400 and not self._complete:
            await self._read_rest()
        headers = self._marked(headers)
        if self.method == "HEAD":
            body = b""
        waiting = None if self._answers else self._send_messages(status, headers, body)
        if waiting is None and (waiting := self._server.answer(status, headers, body)) is None:
            self.finished = True
            return
        guard = self.guard
        guard.limit(_SEND_SECONDS, _NOT_READ)
        try:
            await waiting
        except asyncio.CancelledError:
            if guard.took(_NOT_READ):
                raise ClientLeft from None  # it is there, but does not read
            raise
        finally:
            self.alarms.all.discard(guard)  # it is lifted
        self.finished = True

    async def _send_messages(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def send(self, message: AsgiMessage) -> None:
        """Send one part of the answer. Raises ClientLeft when the client does not read it."""
        if not self.started:
            self.started = True
            if message["status"] >= 400 and not self._complete:
                await self._read_rest()
            message["headers"] = self._marked([*message["headers"]])
        elif self.method == "HEAD":
            message["body"] = b""
        try:
            with Deadline(self.alarms, _SEND_SECONDS):
                await self._send(message)
        except TimeoutError:
            raise ClientLeft from None  # it is there, but does not read
        self.finished = message["type"] == "http.response.body" and not message.get("more_body", False)

    def _marked(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """An answer's headers with those that every answer has."""
        headers.append((b"x-request-id", self.request_id.encode()))
        if self._around.draining.is_set() and self.scope.get("http_version", "1.1").startswith("1"):
            headers.append((b"connection", b"close"))  # RFC 9113, 8.2.2 forbids it in HTTP/2
        return headers

    async def _read_rest(self) -> None:
        try:
            left = self._around.discard
            with Deadline(self.alarms, _DISCARD_SECONDS):
                while not self._complete and left > 0:
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass  # too slow: the refusal goes out all the same

    def body_at_hand(self, limit: int) -> bytes | None:
        """The whole body, if our own server has it; None where it is to be read. Raises BodyTooLarge."""
        whole: bytes | None = None if self._server is None else self._server.whole_body()
        if whole is not None:
            self._complete = True
            if len(whole) > limit:
                raise BodyTooLarge(limit)
        return whole

    async def read_body(self, limit: int, seconds: float) -> bytes:
        """Read the whole body. Raises BodyTooLarge, BodyTimeout or ClientLeft."""
        if (whole := self.body_at_hand(limit)) is not None:
            return whole
        declared = self.headers.values.get(b"content-length")
        if declared is not None and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
            raise BodyTooLarge(limit)
        guard, size = self.guard, 0
        before: list[bytes] = []
        guard.limit(seconds, _SLOW_BODY)
        try:
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    self._complete = True
                    raise ClientLeft
                part: bytes = message.get("body", b"")
                size += len(part)
                self._complete = is_last = not message.get("more_body", False)
                if size > limit:
                    raise BodyTooLarge(limit)
                if is_last:
                    return b"".join([*before, part]) if before else part
                before.append(part)
        except asyncio.CancelledError:
            if guard.took(_SLOW_BODY):
                raise BodyTimeout(seconds) from None
            raise
        finally:
            self.alarms.all.discard(guard)  # it is lifted

    def check_json(self) -> None:
        """Let a body pass that is declared as JSON. Raises UnsupportedMediaType."""
        content_type = self.headers.values.get(b"content-type", b"")
        if content_type != _JSON and content_type.partition(b";")[0].strip().lower() != _JSON:
            raise UnsupportedMediaType(content_type.decode("latin-1")[:100])

    def accepted(self) -> frozenset[str]:
        """The media types of the Accept header, without those of quality 0; empty if there is none."""
        return _media_types(self.headers.raw_value(b"accept") or b"")

    def accepts(self) -> Accepts:
        """Choose the framing of a POST's answer. Raises NotAcceptable."""
        headers = self.headers
        return _accepts(headers.raw_value(b"accept") if headers.is_repeated else headers.values.get(b"accept"))

    def list_as(self) -> ListAs:
        """Choose the framing of a list (contract: Accept). Raises NotAcceptable."""
        types = self.accepted()
        if types & {"text/event-stream", "text/*"}:
            return ListAs.LIVE
        if types & {"application/json", "application/*"}:
            return ListAs.DOCUMENT
        if not types or "*/*" in types:
            return ListAs.SNAPSHOT
        raise NotAcceptable(", ".join(self.headers.all(b"accept"))[:200])

    def base_url(self, public_url: str | None) -> str:
        """What every URL that is handed out begins with: the public one, or how the client reached us."""
        if public_url is not None:
            return public_url
        scheme = self.headers.get(b"x-forwarded-proto", self.scope.get("scheme", "http"))
        host = self.headers.get(b"host", "localhost")
        return f"{scheme if scheme in ('http', 'https') else 'http'}://{host}{self.scope.get('root_path', '')}"


@lru_cache(maxsize=256)  # clients send few different ones
def _media_types(accept: bytes) -> frozenset[str]:
    types: set[str] = set()
    for part in accept.decode("latin-1").split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if media_type and not any(re.fullmatch(r"q=0(\.0*)?", each) for each in parameters):
            types.add(media_type)
    return frozenset(types)


@lru_cache(maxsize=256)
def _accepts(accept: bytes | None) -> Accepts:
    types = _media_types(accept or b"")
    json = bool(types & {"application/json", "application/*"})
    stream = bool(types & {"text/event-stream", "text/*"})
    if json and stream:
        return Accepts.EITHER
    if stream and "*/*" not in types:
        return Accepts.STREAM
    if json or not types or "*/*" in types:
        return Accepts.JSON
    raise NotAcceptable((accept or b"").decode("latin-1")[:200])


def _path(scope: Scope) -> str:
    """The path below the mount point, without a trailing slash; an encoded slash stays encoded."""
    raw_path = scope.get("raw_path")
    path: str = scope["path"]
    if raw_path and b"%2f" in raw_path.lower():
        encoded = raw_path.partition(b"?")[0].decode("latin-1")
        path = "/".join(unquote(part).replace("/", "%2F") for part in encoded.split("/"))
    root = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return path.rstrip("/") or "/"
