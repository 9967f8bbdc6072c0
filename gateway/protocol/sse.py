"""Server-sent events, as bytes and back.

Knows the wire format and its limits; nothing of HTTP, MCP or sockets.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n?|\n")
KEEP_ALIVE = b": keep-alive\n\n"


@dataclass(slots=True)  # not frozen, as what is made for each event: that takes three times as long
class ServerSentEvent:
    """One event; `name` is `message` where the stream gives none."""

    data: bytes
    name: str = "message"
    id: str | None = None
    retry: int | None = None


class EventTooLarge(ValueError):
    """An event exceeds the bound; `limit` is in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"an event is larger than {limit} bytes")
        self.limit = limit


def encode_event(
    data: bytes, *, name: str | None = None, id: str | int | None = None, retry: int | None = None
) -> bytes:
    """Write one event. `name` and `id` must hold no line break; `data` may."""
    if name == "message" and retry is None and b"\n" not in data and b"\r" not in data:  # most are this
        if id is None:
            return b"event: message\ndata: %b\n\n" % data
        return b"event: message\nid: %b\ndata: %b\n\n" % (str(id).encode(), data)
    lines = []
    if name is not None:
        lines.append(b"event: " + name.encode())
    if id is not None:
        lines.append(b"id: " + str(id).encode())
    if retry is not None:
        lines.append(b"retry: " + str(retry).encode())
    if b"\n" in data or b"\r" in data:
        lines.extend(b"data: " + line for line in _LINE_END.split(data))
    else:
        lines.append(b"data: " + data)
    return b"\n".join(lines) + b"\n\n"


class SseDecoder:
    """Turn a byte stream, cut anywhere, into events. Feed it; it keeps at most `limit` bytes."""

    def __init__(self, limit: int = 16 << 20) -> None:
        self._limit = limit
        self._pending = bytearray()  # an unfinished line
        self._scanned = 0  # how much of it is known to hold no line end
        self._skip_line_feed = False
        self._at_start = True
        self._data: list[bytes] = []
        self._size = 0
        self._name = ""
        self._retry: int | None = None
        self.last_id: str | None = None

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that `chunk` completes. Raises EventTooLarge."""
        if self._skip_line_feed and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._skip_line_feed = False
        events: list[ServerSentEvent] = []
        if not self._pending and b"\r" not in chunk:  # whole lines, nearly always
            *lines, rest = chunk.split(b"\n")
            for line in lines:
                if event := self._line(line):
                    events.append(event)
            chunk = rest
        self._pending += chunk
        start = 0
        for end in _LINE_END.finditer(self._pending, self._scanned):
            if event := self._line(bytes(self._pending[start : end.start()])):
                events.append(event)
            start = end.end()
        if start and start == len(self._pending) and self._pending.endswith(b"\r"):
            self._skip_line_feed = True
        del self._pending[:start]
        self._scanned = len(self._pending)
        if self._size + len(self._pending) > self._limit:
            raise EventTooLarge(self._limit)
        return events

    def _line(self, line: bytes) -> ServerSentEvent | None:
        if self._at_start:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._at_start = False
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match field:
            case b"data":
                self._keep(value)
            case b"event":
                self._name = value.decode(errors="replace")
            case b"id" if b"\0" not in value:
                self.last_id = value.decode(errors="replace")
            case b"retry" if value.isdigit() and len(value) < 10:
                self._retry = int(value)
        return None

    def _keep(self, value: bytes) -> None:
        self._data.append(value)
        self._size += len(value) + 1
        if self._size > self._limit:
            raise EventTooLarge(self._limit)

    def _dispatch(self) -> ServerSentEvent | None:
        data, name, retry = self._data, self._name or "message", self._retry
        self._data, self._size, self._name, self._retry = [], 0, "", None
        if not data and retry is None:
            return None
        return ServerSentEvent(b"\n".join(data), name, self.last_id, retry)
