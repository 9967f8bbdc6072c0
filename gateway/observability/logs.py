"""How this process logs: one line per event, as text or JSON; one line per call, with fields that hold no secret."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

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
        self._fixed = fixed

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._fixed,
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class TextFormatter(logging.Formatter):
    """One line for people; values that callers chose are quoted."""

    def __init__(self, fixed: Mapping[str, Any]) -> None:
        who = " ".join(str(value) for value in fixed.values())
        super().__init__(f"%(asctime)s {who} %(levelname)s %(name)s: %(message)s".replace("  ", " "))

    def formatMessage(self, record: logging.LogRecord) -> str:  # the library's name
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        fields: Mapping[str, Any] = getattr(record, FIELDS, {})
        return " ".join([text, *(f"{name}={_quoted(value)}" for name, value in fields.items() if value is not None)])


def _quoted(value: Any) -> str:
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text else orjson.dumps(text).decode()


def configure(form: str, level: str, **fixed: Any) -> None:
    """Log to standard error in this form (`text` or `json`), each line with the `fixed` fields."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(fixed) if form == "json" else TextFormatter(fixed))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for quiet in ("httpx", "httpcore", "psycopg.pool"):
        logging.getLogger(quiet).setLevel(logging.ERROR)
