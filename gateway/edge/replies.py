"""Bodies in, documents out: what a client accepts, bounded reads, JSON and problem documents.

Knows bounds and wire shapes; nothing of MCP's methods.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from gateway.errors import (
    BodyTimeout,
    BodyTooLarge,
    ClientLeft,
    GatewayError,
    NotAcceptable,
)
from gateway.observability.logs import FIELDS
from gateway.protocol.messages import Failure, encode

_PIECE = 256 << 10
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

refusals = logging.getLogger("gateway.refusals")

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Http:
    """One HTTP request as it came in, and the way to answer it."""

    scope: Scope
    receive: Receive
    send: Send
    headers: Headers
    request_id: str = ""

    @property
    def method(self) -> str:
        method: str = self.scope["method"]
        return method

    def base_url(self, public_url: str | None) -> str:
        """What every URL that is handed out begins with: the public one, or how the client reached us."""
        if public_url is not None:
            return public_url
        scheme = self.headers.get("x-forwarded-proto", self.scope.get("scheme", "http"))
        host = self.headers.get("host", "localhost")
        return f"{scheme if scheme in ('http', 'https') else 'http'}://{host}{self.scope.get('root_path', '')}"


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


def accepted(headers: Headers) -> set[str]:
    """The media types of the Accept header, without those of quality 0; empty if there is none."""
    types: set[str] = set()
    for value in headers.getlist("accept"):
        for part in value.split(","):
            media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
            if media_type and not any(re.fullmatch(r"q=0(\.0*)?", each) for each in parameters):
                types.add(media_type)
    return types


def accepts(headers: Headers) -> Accepts:
    """Choose the framing of a POST's answer. Raises NotAcceptable."""
    types = accepted(headers)
    json = bool(types & {"application/json", "application/*"})
    stream = bool(types & {"text/event-stream", "text/*"})
    if json and stream:
        return Accepts.EITHER
    if stream and "*/*" not in types:
        return Accepts.STREAM
    if json or not types or "*/*" in types:
        return Accepts.JSON
    raise NotAcceptable(", ".join(headers.getlist("accept"))[:200])


def list_as(headers: Headers) -> ListAs:
    """Choose the framing of a list (contract: Accept). Raises NotAcceptable."""
    types = accepted(headers)
    if types & {"text/event-stream", "text/*"}:
        return ListAs.LIVE
    if types & {"application/json", "application/*"}:
        return ListAs.DOCUMENT
    if not types or "*/*" in types:
        return ListAs.SNAPSHOT
    raise NotAcceptable(", ".join(headers.getlist("accept"))[:200])


async def read_body(http: Http, limit: int, seconds: float) -> bytes:
    """Read the whole body. Raises BodyTooLarge, BodyTimeout or ClientLeft."""
    declared = http.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise BodyTooLarge(limit)
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await http.receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > limit:
                    raise BodyTooLarge(limit)
                more = message.get("more_body", False)
    except TimeoutError:
        raise BodyTimeout(seconds) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def request_id(headers: Headers) -> str:
    """The caller's X-Request-Id, if it is one that may be repeated, else a new one."""
    value = headers.get("x-request-id", "")
    return value if _REQUEST_ID.fullmatch(value) else secrets.token_hex(8)


async def send_bytes(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes = b"application/json",
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a whole answer."""
    fixed = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    last = max(0, (len(body) - 1) // _PIECE * _PIECE)  # in pieces, so that a client that stops reading holds no more
    for at in range(0, last, _PIECE):
        await send({"type": "http.response.body", "body": body[at : at + _PIECE], "more_body": True})
    await send({"type": "http.response.body", "body": body[last:]})


async def send_json(send: Send, value: Any, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a JSON document."""
    await send_bytes(send, status, to_bytes(value), headers=headers)


async def send_empty(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a status without a body."""
    length = [] if status == 204 else [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": [*length, *headers]})
    await send({"type": "http.response.body", "body": b""})


def to_bytes(value: Any) -> bytes:
    """Write JSON, with times in UTC as RFC 3339 has them."""
    return orjson.dumps(value, option=orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS)


def problem(error: GatewayError) -> dict[str, Any]:
    """The problem document of an error (RFC 9457)."""
    slug = re.sub(r"[^a-z0-9]+", "-", error.title.lower()).strip("-")
    return {
        "type": f"urn:mcp-gateway:problem:{slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        **error.facts,
    }


def log_refusal(http: Http, error: GatewayError) -> None:
    """One line for a request that was refused before it became a call; nothing of what it carried.

    Clients look for OAuth's documents at up to eight addresses before each good connect: that is no refusal to read of.
    """
    path = str(http.scope.get("path", ""))
    if not error.logged:
        fields = {
            "http_method": http.method,
            "path": path[:200],
            "status": error.status,
            "outcome": error.title,
            "request_id": http.request_id,
        }
        refusals.log(logging.DEBUG if "/.well-known/" in path else logging.INFO, "refused", extra={FIELDS: fields})


async def send_problem(send: Send, error: GatewayError, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer a REST request with an error."""
    body = to_bytes(problem(error))
    await send_bytes(send, error.status, body, b"application/problem+json", [*raw(error.headers), *headers])


async def send_failure(
    send: Send, error: GatewayError, status: int | None = None, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answer a JSON-RPC request that could not be dispatched."""
    body = encode(Failure(error.id, error.code, error.detail, error.data))
    await send_bytes(send, status or error.status, body, headers=[*raw(error.headers), *headers])


def raw(headers: Mapping[str, str]) -> RawHeaders:
    """Headers as ASGI wants them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
