"""What the transports over HTTP have in common: their bounds, and the border where foreign exceptions become ours."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import httpx

from gateway.errors import AddressRefused, OutcomeUnknown, UpstreamError, UpstreamProtocolError, UpstreamUnreachable
from gateway.net.http1_client import Response


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Bounds of one upstream's wire; times in seconds, sizes in bytes."""

    handshake_seconds: float = 10.0
    max_result: int = 16 << 20


FOREIGN = (AddressRefused, httpx.HTTPError, httpx.InvalidURL, UnicodeError, RuntimeError)
"""What the HTTP client raises; uvloop raises RuntimeError on a transport that was closed."""

_NOT_SENT = (
    httpx.InvalidURL,
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    UnicodeError,
)


def translated(server: str, error: Exception) -> UpstreamError:
    """One of the HTTP client's exceptions as ours, naming the server."""
    if isinstance(error, AddressRefused):
        return UpstreamUnreachable(server, f"Server {server!r} is not connected to. {error.detail}")
    if isinstance(error, _NOT_SENT):
        return UpstreamUnreachable(server, f"Server {server!r} can't be reached: {_why(error)}.")
    return OutcomeUnknown(
        server,
        f"The connection to server {server!r} was lost ({_why(error)}); "
        "it may or may not have carried the request out.",
    )


@contextmanager
def foreign(server: str) -> Iterator[None]:
    """The border itself, around what talks to the server."""
    try:
        yield
    except FOREIGN as error:
        raise translated(server, error) from None


async def read_bounded(server: str, response: Response, limit: int) -> bytes:
    """Read a whole body. Raises UpstreamProtocolError when it is larger than `limit` bytes."""
    data = await response.read(limit)
    if data is None:
        raise too_large(server, limit)
    return data


def too_large(server: str, limit: int) -> UpstreamProtocolError:
    """What a server that sends too much has done."""
    return UpstreamProtocolError(
        server, f"Server {server!r} sent a message of more than {limit} bytes (GATEWAY_MAX_RESULT)."
    )


def media_type(response: Response) -> str:
    """The media type of an answer, without parameters, in lower case."""
    return _media_type(response.named.get(b"content-type", b""))


@lru_cache(maxsize=64)  # servers send few different ones
def _media_type(value: bytes) -> str:
    return value.decode("latin-1").partition(";")[0].strip().lower()


def _why(error: BaseException) -> str:
    """The system's own words for what went wrong, from as deep as they stand."""
    found: BaseException | None = error
    text = str(error) or type(error).__name__
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"its certificate is not valid: {found.verify_message}"
        if isinstance(found, ssl.SSLError) and found.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return "it does not speak TLS; should its URL begin with http://?"
        if isinstance(found, OSError) and found.strerror:
            text = found.strerror
        if isinstance(found, BaseExceptionGroup) and found.exceptions:
            found = found.exceptions[0]
        else:
            found = found.__cause__ or found.__context__
    return text.rstrip(".")
