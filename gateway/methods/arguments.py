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

from gateway.model.parts import Target
from gateway.model.schema_cost import cost
from gateway.protocol.messages import dump

_SHOWN = 5  # errors in one answer
_MAX_BYTES = 256 << 10  # of a schema
_MAX_UNFOLDED = 100_000  # schemas in one, with all references written out
_MAX_STEPS = 5_000_000  # of one check: a step takes some ten nanoseconds
_BYTES_PER_VALUE = 4
_BACKTRACKS = 10_000  # of a pattern

_MAX_KNOWN = 20_000  # schemas

log = logging.getLogger("gateway.schemas")


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A schema that checks, and how many of its parts look at one place of a value at most."""

    validator: Any
    in_place: int


@dataclass(frozen=True, slots=True)
class _Known:
    """A compiled schema (None where it checks nothing), and what it was taken from: offers, or an override."""

    source: object
    schema: Mapping[str, Any]
    compiled: _Compiled | None


class ArgumentChecker:
    """The compiled schemas of this worker, by tool; made anew when a tool's definition, or its override, changed."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[str, str, int], _Known] = {}

    def wrong(self, target: Target, arguments: Mapping[str, Any]) -> list[str]:
        """Say what is wrong with the arguments of a call, as callers see the tool: `field: what`, at most five."""
        compiled = self._validator(target)
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

    def _validator(self, target: Target) -> _Compiled | None:
        server, tool = target.server, target.local
        rewrite = None if target.overridden is None else target.overridden.rewrite
        key = server.name, tool, 0 if rewrite is None else id(rewrite)
        known = self._compiled.get(key)
        if known is not None and known.source is (rewrite or server.offers):
            return known.compiled
        if rewrite is not None:
            schema: Mapping[str, Any] | None = rewrite.schema
        else:
            schema = next((each["inputSchema"] for each in server.offers.tools if each["name"] == tool), None)
        if schema is None:
            return None
        is_same = known is not None and known.schema == schema
        compiled = known.compiled if known is not None and is_same else _compile(server.name, tool, schema)
        if len(self._compiled) >= _MAX_KNOWN:
            self._compiled.clear()
        self._compiled[key] = _Known(rewrite or server.offers, schema, compiled)
        return compiled


def misfit(schema: Mapping[str, Any], value: Any) -> str | None:
    """What is wrong with a value that is to be sent as an argument with this schema; None for nothing, or unknown."""
    compiled = _compile("", "", schema)
    if compiled is None or compiled.in_place * len(dump(value)) > _MAX_STEPS:
        return None
    error = next(compiled.validator.iter_errors(value), None)
    return None if error is None else str(error.message)[:200]


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
        if server:
            log.warning("arguments of tool %s of server %s are not checked: %s", tool, server, reason)
        return None


def _never(uri: str) -> Any:
    raise ValueError("references are not fetched")
