"""One spelling of a URI, and the others that lead to the same place, so that grants can't be passed by another one.

What is allowed is judged by the URI as it is written and in its normal spelling, which is the one that is passed on;
what is denied by every reading that a server may have of it. Source: RFC 3986, 6.2.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//[^/?#]*)?")
_HOSTED = frozenset({"http", "https", "ws", "wss", "file"})
"""The schemes whose authority is a host, in which upper and lower case are the same."""
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_BAD_ENCODING = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SEGMENT_ENDS = re.compile(r"[/\\?#:]")
_SLASHES = re.compile(r"/{2,}")
_READINGS = 4  # as it is, and decoded three times: a server may decode twice
_MAX_LENGTH = 8192  # characters: reading takes time that grows with them


@dataclass(frozen=True, slots=True)
class Spellings:
    """A URI in its `normal` spelling, how it is `judged` to be allowed, and `read` by servers of all kinds."""

    normal: str
    judged: tuple[str, ...]
    read: tuple[str, ...]


def normal_uri(uri: str) -> str | None:
    """The URI in its normal spelling; None for one with dot segments, also encoded ones, and for what is no URI."""
    found = spellings(uri)
    return None if found is None else found.normal


@lru_cache(maxsize=512)  # a call asks several times for one
def spellings(uri: str) -> Spellings | None:
    """The spellings of a URI; None for one that is refused: too long, badly encoded, or with dot segments."""
    if len(uri) > _MAX_LENGTH or _BAD_ENCODING.search(uri):
        return None
    readings = [uri]
    while len(readings) < _READINGS and (decoded := unquote(readings[-1])) != readings[-1]:
        readings.append(decoded)
    if any(segment in (".", "..") for each in readings for segment in _SEGMENT_ENDS.split(each)):
        return None
    normal = normal_spelling(uri)
    read = dict.fromkeys([normal, *readings])
    read |= dict.fromkeys(_plain(each) for each in list(read))
    return Spellings(normal, tuple(dict.fromkeys((uri, normal))), tuple(read))


def normal_spelling(text: str) -> str:
    """Scheme and host in lower case, no percent-encoding where none is needed, its digits in upper case, else ASCII."""
    text = _NOT_ASCII.sub(lambda found: quote(found[0]), _ENCODED.sub(_spelled, text))
    begin = _SCHEME.match(text)
    if begin is None:
        return text
    authority = begin[2] or ""
    scheme = begin[1].lower()
    return f"{scheme}:{authority.lower() if scheme in _HOSTED else authority}{text[begin.end() :]}"


def _plain(text: str) -> str:
    """A reading without what many servers pass over: repeated slashes, a backslash for one, `localhost` in a file's."""
    text = text.replace("\\", "/")
    begin = _SCHEME.match(text)
    head, rest = ("", text) if begin is None else (begin[0], text[begin.end() :])
    if head.lower() == "file://localhost":
        head = "file://"
    return head.lower() + _SLASHES.sub("/", rest)


def _spelled(found: re.Match[str]) -> str:
    letter = chr(int(found[1], 16))
    return letter if letter in _UNRESERVED else found[0].upper()
