"""Large results that are passed on as they came: checked to be JSON, never made into values.

The values of a result take up to eleven times its bytes, and fifteen times as long to make as it takes to check it.
Most results are only passed on, so that nobody needs them. The only importer of msgspec, whose `Raw` is a JSON text
that was read over; UTF-8 is checked here, since msgspec leaves the bytes of a string that is read over alone.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

import msgspec

LARGE = 256 << 10
"""Bytes of a message from which on its result is not read before somebody needs the values."""
_WINDOW = 64 << 10
_LINKS = b"resource"
"""What a result that holds links or copies of resources has in it (MCP 2025-11-25, tools, tool result)."""


@dataclass(slots=True)
class Large:
    """What is known of a large result."""

    is_error: bool
    """Whether it is a tool's own error."""
    may_link: bool
    """Whether it may name resources, whose URIs are others here."""


class _Result(msgspec.Struct, gc=False):
    isError: msgspec.Raw = msgspec.Raw(b"false")  # MCP's name


_RESULTS = msgspec.json.Decoder(_Result)


def checked(result: memoryview) -> Large | None:
    """Look at a result, a JSON object; None if it is no valid JSON, or no UTF-8."""
    try:
        found = _RESULTS.decode(result)
        _check_utf8(result)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return Large(bytes(found.isError) == b"true", _mentions(result, _LINKS))


def _mentions(data: memoryview, what: bytes) -> bool:
    """Whether something is in the data. A part at a time, since a view can't be searched."""
    step = _WINDOW - len(what)
    return any(what in bytes(data[start : start + _WINDOW]) for start in range(0, len(data), step))


def _check_utf8(data: memoryview) -> None:
    """Raises UnicodeDecodeError. A part at a time, so that no copy of the whole is made."""
    start = 0
    while start < len(data):
        end = start + _WINDOW
        start += codecs.utf_8_decode(data[start:end], "strict", end >= len(data))[1]
