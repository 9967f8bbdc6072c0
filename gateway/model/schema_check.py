"""Values checked against a JSON Schema that comes from elsewhere, in a bounded time: compiled once, nothing fetched.

A schema that can't be compiled, or that would take too long, is not checked with; who asks says what that means. A
check holds the worker's loop, so that each has a bound too. The only importer of jsonschema-rs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs
import orjson

from gateway.model.schema_cost import cost

_MAX_BYTES = 256 << 10  # of a schema
_MAX_UNFOLDED = 100_000  # schemas in one, with all references written out
_MAX_STEPS = 5_000_000  # of one check: a step takes some ten nanoseconds
_BACKTRACKS = 10_000  # of a pattern


class UncheckableSchema(Exception):
    """A schema that values are not checked with; the text says why."""


class SchemaCheck:
    """One compiled schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises UncheckableSchema."""
        try:
            size = len(orjson.dumps(schema))
            if size > _MAX_BYTES:
                raise ValueError(f"the schema has more than {_MAX_BYTES >> 10} KiB")
            found = cost(schema)
            if found.unfolded > _MAX_UNFOLDED:
                raise ValueError(f"the schema unfolds to more than {_MAX_UNFOLDED} schemas")
            patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS)
            self._validator = jsonschema_rs.validator_for(dict(schema), retriever=_never, pattern_options=patterns)
            self._in_place = found.in_place
        except (ValueError, TypeError, jsonschema_rs.ValidationError) as error:
            raise UncheckableSchema(str(error).partition("\n")[0][:200]) from None

    def is_too_much(self, values: int) -> bool:
        """Whether a value that is made of so many would take too long to check."""
        return values * self._in_place > _MAX_STEPS

    def errors(self, value: Any) -> Iterator[tuple[str, str]]:
        """What is wrong with a value: where (names with dots between them, empty for the whole), and what."""
        for error in self._validator.iter_errors(value):
            yield ".".join(str(step) for step in error.instance_path), str(error.message)[:200]


def _never(uri: str) -> Any:
    raise ValueError("references are not fetched")
