"""Whether a URI can have come from a URI template (RFC 6570).

Generous, since the server judges, and linear in the URI: templates come from upstreams, URIs from clients.
"""

from __future__ import annotations

import re

_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_OPERATORS = "+#./;?&"


class UriTemplate:
    """A template, taken apart once."""

    def __init__(self, template: str) -> None:
        parts = _EXPRESSION.split(template)
        self._literals = parts[::2]
        self._expressions = parts[1::2]

    @property
    def width(self) -> tuple[int, int]:
        """The narrower of two templates is less: it has more letters of its own, and fewer expressions."""
        return -sum(map(len, self._literals)), len(self._expressions)

    def matches(self, uri: str) -> bool:
        """Tell whether an expansion could give `uri`: each expression ends where the next literal first stands."""
        if not self._expressions:
            return uri == self._literals[0]
        if not uri.startswith(self._literals[0]):
            return False
        position = len(self._literals[0])
        for expression, literal in zip(self._expressions[:-1], self._literals[1:-1], strict=True):
            end = uri.find(literal, position + (not _may_be_empty(expression)))
            if end < 0 or not _fits(expression, uri[position:end]):
                return False
            position = end + len(literal)
        end = len(uri) - len(self._literals[-1])
        return end >= position and uri.endswith(self._literals[-1]) and _fits(self._expressions[-1], uri[position:end])


def _may_be_empty(expression: str) -> bool:
    return expression[:1] in tuple(_OPERATORS)


def _fits(expression: str, value: str) -> bool:
    if _may_be_empty(expression):
        return True
    return bool(value) and not any(letter in value for letter in "/?#")
