"""How this process logs: one line per event, as text or JSON; one line per call, with fields that hold no secret."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, TextIO

import orjson

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
FIELDS = "fields"
"""The record's attribute with what a call's line says."""


def printable(text: str) -> str:
    """A text of somebody else's on one line, without what a terminal would take for a command."""
    return _CONTROL.sub("\ufffd", text)


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def __init__(self, fixed: Mapping[str, Any]) -> None:
        super().__init__()
        self._fixed = self.part(fixed)

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, FIELDS, {})
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        return self.line(record.created, record.levelname, record.name, record.getMessage(), fields)

    def line(self, created: float, level: str, name: str, message: str, fields: Mapping[str, Any]) -> str:
        """What `format` makes of a record of these parts."""
        return self.line_of(created, level, name, message, self.part(fields))

    def part(self, fields: Mapping[str, Any]) -> str:
        """Some fields, as they stand in a line."""
        return orjson.dumps(fields, default=str)[1:-1].decode()

    def line_of(self, created: float, level: str, name: str, message: str, *parts: str) -> str:
        """A line of fields that are written already."""
        written = ",".join(filter(None, (_head(level, name, message), self._fixed, *parts)))
        return f'{{"time":"{_utc(int(created))}.{int(created % 1 * 1000):03d}+00:00",{written}}}'


@lru_cache(maxsize=16)  # calls have the same one
def _head(level: str, name: str, message: str) -> str:
    return orjson.dumps({"level": level.lower(), "logger": name, "message": message})[1:-1].decode()


class TextFormatter(logging.Formatter):
    """One line for people; values that callers chose are quoted."""

    def __init__(self, fixed: Mapping[str, Any]) -> None:
        super().__init__()
        self._who = "".join(f" {value}" for value in fixed.values() if value)

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, FIELDS, {})
        text = self.line(record.created, record.levelname, record.name, record.getMessage(), fields)
        if record.exc_info:  # set apart, so that no line of it can be taken for one of ours
            lines = self.formatException(record.exc_info).splitlines()
            text = "\n".join([text, *(f"    {printable(line)}" for line in lines)])
        return text

    def line(self, created: float, level: str, name: str, message: str, fields: Mapping[str, Any]) -> str:
        """What `format` makes of a record of these parts."""
        return self.line_of(created, level, name, message, self.part(fields))

    def part(self, fields: Mapping[str, Any]) -> str:
        """Some fields, as they stand in a line."""
        parts = []
        for key, value in fields.items():
            if type(value) is str and not (value.isascii() and value.isprintable() and " " not in value):
                value = orjson.dumps(value).decode()
            if value is not None:
                parts.append(f" {key}={value}")
        return "".join(parts)

    def line_of(self, created: float, level: str, name: str, message: str, *parts: str) -> str:
        """A line of fields that are written already."""
        if not message.isprintable():
            message = printable(message)
        clock, milliseconds = _clock(int(created)), int(created % 1 * 1000)
        return f"{clock},{milliseconds:03d}{self._who} {level} {name}: {message}{''.join(parts)}"


@lru_cache(maxsize=4)
def _clock(second: int) -> str:
    """A second in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


@lru_cache(maxsize=4)
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream: records one by one, and ready lines many at once."""

    def __init__(self, stream: TextIO, formatter: JsonFormatter | TextFormatter) -> None:
        super().__init__(stream)
        self.setFormatter(formatter)
        self.part, self.line_of = formatter.part, formatter.line_of

    def write(self, lines: Iterable[str]) -> None:
        """Write some lines; a stream that can't be written to is not our callers' fault."""
        with self.lock or nullcontext():
            try:
                self.stream.write("\n".join((*lines, "")))
                self.stream.flush()
            except (OSError, ValueError):
                pass


def only_handler(logger: logging.Logger) -> LineHandler | None:
    """The handler that `configure` installed, if nobody else's gets this logger's records."""
    found: list[logging.Handler] = []
    at: logging.Logger | None = logger
    while at is not None:
        found += at.handlers
        at = at.parent if at.propagate else None
    return found[0] if len(found) == 1 and isinstance(found[0], LineHandler) else None


def configure(form: str, level: str, **fixed: Any) -> None:
    """Log to standard error in this form (`text` or `json`), each line with the `fixed` fields."""
    formatter = JsonFormatter(fixed) if form == "json" else TextFormatter(fixed)
    logging.basicConfig(level=level.upper(), handlers=[LineHandler(sys.stderr, formatter)], force=True)
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
