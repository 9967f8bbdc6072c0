"""Arguments checked at the edge, for servers that ask for it: a tool's JSON Schema, compiled once.

A `$ref` is resolved inside the schema only, never fetched; a schema that can't be compiled, or that would take too long
to check, checks nothing, and the server judges as it always does. A check holds the worker's loop: arguments that are
too large for their schema are refused instead. The only importer of jsonschema-rs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from gateway.model.schema_cost import cost
from gateway.model.server import Offers, Server
from gateway.protocol.messages import dump

_SHOWN = 5  # errors in one answer
_MAX_BYTES = 256 << 10  # of a schema
_MAX_UNFOLDED = 100_000  # schemas in one, with all references written out
_MAX_STEPS = 5_000_000  # of one check: a step takes some ten nanoseconds
_BYTES_PER_VALUE = 4
_BACKTRACKS = 10_000  # of a pattern

log = logging.getLogger("gateway.schemas")


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A schema that checks, and how many of its parts look at one place of a value at most."""

    validator: Any
    in_place: int


class ArgumentChecker:
    """The compiled schemas of this worker, by tool; made anew when a tool's definition changed."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[str, str], tuple[Offers, Mapping[str, Any], _Compiled | None]] = {}

    def wrong(self, server: Server, tool: str, arguments: Mapping[str, Any]) -> list[str]:
        """Say what is wrong with the arguments of a call: `field: what`, at most five."""
        compiled = self._validator(server, tool)
        if compiled is None:
            return []
        if len(dump(arguments)) // _BYTES_PER_VALUE * compiled.in_place > _MAX_STEPS:
            return ["arguments: they are too large to be checked against the tool's schema"]
        found = []
        for error in compiled.validator.iter_errors(dict(arguments)):
            where = ".".join(str(step) for step in error.instance_path) or "arguments"
            found.append(f"{where}: {error.message[:200]}")
            if len(found) == _SHOWN:
                break
        return found

    def forget(self, names: frozenset[str]) -> None:
        """Keep only what belongs to these servers."""
        self._compiled = {key: kept for key, kept in self._compiled.items() if key[0] in names}

    def _validator(self, server: Server, tool: str) -> _Compiled | None:
        known = self._compiled.get((server.name, tool))
        if known is not None and known[0] is server.offers:
            return known[2]
        schema = next((each["inputSchema"] for each in server.offers.tools if each["name"] == tool), None)
        if schema is None:
            return None
        is_same = known is not None and known[1] == schema
        compiled = known[2] if known is not None and is_same else _compile(server.name, tool, schema)
        self._compiled[server.name, tool] = server.offers, schema, compiled
        return compiled


def _compile(server: str, tool: str, schema: Mapping[str, Any]) -> _Compiled | None:
    try:
        if len(dump(schema)) > _MAX_BYTES:
            raise ValueError(f"the schema has more than {_MAX_BYTES >> 10} KiB")
        found = cost(schema)
        if found.unfolded > _MAX_UNFOLDED:
            raise ValueError(f"the schema unfolds to more than {_MAX_UNFOLDED} schemas")
        patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS)
        validator = jsonschema_rs.validator_for(dict(schema), retriever=_never, pattern_options=patterns)
        return _Compiled(validator, found.in_place)
    except (ValueError, jsonschema_rs.ValidationError) as error:
        reason = str(error).partition("\n")[0][:200]
        log.warning("arguments of tool %s of server %s are not checked: %s", tool, server, reason)
        return None


def _never(uri: str) -> Any:
    raise ValueError("references are not fetched")
