"""What of a JSON value an expression selects (JMESPath), within a bound: an expression may come from a caller.

An expression can make much of little (`[@, @, …]` again and again), so that each step, and each item that a step brings
about, is counted. What stands in a value several times is one object here and as many when it is written or compared:
of what may bring that about all of the value is counted. Source: the JMESPath specification.
"""

from __future__ import annotations

from typing import Any

from jmespath import compile as compile_expression
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions, signature
from jmespath.visitor import Options, TreeInterpreter

from gateway.errors import InvalidParams

MAX_EXPRESSION = 1_000
_MAX_STEPS = 1_000_000
_LETTERS_PER_STEP = 50
_MAX_PLACES = 4_000_000  # of values that are put together
_MAX_JOINED = 64 << 20  # characters


class _Functions(Functions):  # type: ignore[misc]
    @signature({"types": ["string"]}, {"types": ["array-string"]})  # type: ignore[untyped-decorator]
    def _func_join(self, separator: str, array: list[str]) -> str:
        if len(separator) * len(array) + sum(map(len, array)) > _MAX_JOINED:
            raise _too_much()
        return separator.join(array)


class _Bounded(TreeInterpreter):  # type: ignore[misc]  # the library has no types
    """Counts what it visits, and what comes of it."""

    def __init__(self) -> None:
        super().__init__(Options(custom_functions=_Functions()))
        self.left = _MAX_STEPS
        self.places = _MAX_PLACES

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        found = super().visit(node, *args, **kwargs)
        if isinstance(found, list | dict):
            self.left -= len(found)
        elif isinstance(found, str):
            self.left -= len(found) // _LETTERS_PER_STEP
        if self.left < 0:
            raise _too_much()
        return found

    def visit_multi_select_list(self, node: Any, value: Any) -> Any:
        return self._counted(super().visit_multi_select_list(node, value))

    def visit_multi_select_dict(self, node: Any, value: Any) -> Any:
        return self._counted(super().visit_multi_select_dict(node, value))

    def visit_literal(self, node: Any, value: Any) -> Any:
        return self._counted(super().visit_literal(node, value))

    def _counted(self, found: Any) -> Any:
        """The same, all of it counted: what stands in it twice counts twice."""
        waiting = [found]
        while waiting:
            each = waiting.pop()
            self.places -= 1
            if isinstance(each, list | dict):
                if len(each) > self.places:
                    raise _too_much()
                waiting.extend(each.values() if isinstance(each, dict) else each)
            elif isinstance(each, str):
                self.places -= len(each) // _LETTERS_PER_STEP
            if self.places < 0:
                raise _too_much()
        return found


def _too_much() -> InvalidParams:
    return InvalidParams("The expression takes too many steps on this result: select less at once.", "select")


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
        found = _Bounded().visit(compile_expression(text).parsed, value)
        if isinstance(found, str):
            found.encode()  # a literal may hold half a character
        return found
    except (JMESPathError, RecursionError, TypeError, ValueError, AttributeError) as error:
        raise InvalidParams(f"The expression can't be used on this result: {_line(error)}", "select") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
