"""The log's lines: what others say can't be taken for a line of ours."""

import logging
import sys

from gateway.observability.logs import FIELDS, TextFormatter

FORGED = "bad\n2026-01-01 00:00:00,000 INFO gateway: all is well\x1b[2J"


def record(message: str, error: BaseException | None = None) -> logging.LogRecord:
    what = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord("gateway.test", logging.WARNING, "", 0, message, (), what)
    setattr(made, FIELDS, {"tool": FORGED})
    return made


def test_a_line_break_in_a_message_or_a_field_makes_no_line() -> None:
    assert len(TextFormatter({}).format(record(FORGED)).splitlines()) == 1


def test_the_lines_of_a_traceback_are_set_apart() -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        error = sys.exc_info()[1]
    first, *others = TextFormatter({}).format(record("it failed", error)).splitlines()
    assert "it failed" in first
    assert any("all is well" in line for line in others)
    assert all(line.startswith("    ") and line.isprintable() for line in others)
