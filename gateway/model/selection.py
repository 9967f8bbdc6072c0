"""What of a JSON value an expression selects (JMESPath), within a bound: an expression may come from a caller.

An expression can make much of little (`[@, @, …]` again and again), so that each step, and each item that a step brings
about, is counted. Source: the JMESPath specification.
"""

from __future__ import annotations

from typing import Any

from jmespath import compile as compile_expression
from jmespath.exceptions import JMESPathError
from jmespath.visitor import Options, TreeInterpreter

from gateway.errors import InvalidParams

MAX_EXPRESSION = 1_000
_MAX_STEPS = 1_000_000
_LETTERS_PER_STEP = 50


class _Bounded(TreeInterpreter):  # type: ignore[misc]  # the library has no types
    """Counts what it visits, and what comes of it."""

    def __init__(self) -> None:
        super().__init__(Options())
        self.left = _MAX_STEPS

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        found = super().visit(node, *args, **kwargs)
        if isinstance(found, list | dict):
            self.left -= len(found)
        elif isinstance(found, str):
            self.left -= len(found) // _LETTERS_PER_STEP
        if self.left < 0:
            raise InvalidParams("The expression takes too many steps on this result: select less at once.", "select")
        return found


def check_expression(text: object, at: str) -> str:
    """Let an expression pass that can be read. Raises InvalidParams."""
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_EXPRESSION:
        raise InvalidParams(f"'{at}' must be a JMESPath expression of at most {MAX_EXPRESSION} characters.", at)
    try:
        compile_expression(text)
    except (JMESPathError, RecursionError) as error:
        raise InvalidParams(f"'{at}' is no JMESPath expression: {_line(error)}", at) from None
    return text


def selected(text: str, value: Any) -> Any:
    """What an expression selects of a value; None where it fits nothing. Raises InvalidParams."""
    check_expression(text, "select")
    try:
        return _Bounded().visit(compile_expression(text).parsed, value)
    except (JMESPathError, RecursionError, TypeError, ValueError, AttributeError) as error:
        raise InvalidParams(f"The expression can't be used on this result: {_line(error)}", "select") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
