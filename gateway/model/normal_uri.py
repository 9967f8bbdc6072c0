"""One spelling of a URI, so that a grant can't be passed by another one of the same. Source: RFC 3986, 6.2.2."""

from __future__ import annotations

import re
from urllib.parse import unquote

_SCHEME_HOST = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)(//[^/?#]*)?")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SEGMENT_ENDS = re.compile(r"[/\\?#:]")
_READINGS = 4  # as it is, and decoded three times: a server may decode twice


def normal_uri(uri: str) -> str | None:
    """The URI in its normal spelling; None for one with dot segments, also encoded ones.

    Scheme and host are in lower case, what needs no percent-encoding has none, the rest has upper-case digits.
    """
    text = uri
    for _ in range(_READINGS):
        if any(segment in (".", "..") for segment in _SEGMENT_ENDS.split(text)):
            return None
        text = unquote(text)
    normal = _ENCODED.sub(_spelled, uri)
    begin = _SCHEME_HOST.match(normal)
    return normal if begin is None else begin[0].lower() + normal[begin.end() :]


def _spelled(found: re.Match[str]) -> str:
    letter = chr(int(found[1], 16))
    return letter if letter in _UNRESERVED else found[0].upper()
