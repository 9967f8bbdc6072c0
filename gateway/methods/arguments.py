"""Arguments checked at the edge, for servers that ask for it: a tool's JSON Schema, compiled once.

A `$ref` is resolved inside the schema only, never fetched; a schema that can't be compiled, or that would take too long
to check, checks nothing, and the server judges as it always does. A check holds the worker's loop: arguments that are
too large for their schema are refused instead.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from gateway.model.parts import Target
from gateway.model.schema_check import SchemaCheck, UncheckableSchema
from gateway.protocol.messages import dump

_SHOWN = 5  # errors in one answer
_BYTES_PER_VALUE = 4
_MAX_KNOWN = 20_000  # schemas

log = logging.getLogger("gateway.schemas")


@dataclass(frozen=True, slots=True)
class _Known:
    """A compiled schema (None where it checks nothing), and what it was taken from: offers, or an override."""

    source: object
    schema: Mapping[str, Any]
    check: SchemaCheck | None


class ArgumentChecker:
    """The compiled schemas of this worker, by tool; made anew when a tool's definition, or its override, changed."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[str, str, int], _Known] = {}

    def wrong(self, target: Target, arguments: Mapping[str, Any]) -> list[str]:
        """Say what is wrong with the arguments of a call, as callers see the tool: `field: what`, at most five."""
        check = self._check(target)
        if check is None:
            return []
        if check.is_too_much(len(dump(arguments)) // _BYTES_PER_VALUE):
            return ["arguments: they are too large to be checked against the tool's schema"]
        return [f"{where or 'arguments'}: {what}" for where, what in islice(check.errors(dict(arguments)), _SHOWN)]

    def forget(self, names: frozenset[str]) -> None:
        """Keep only what belongs to these servers."""
        self._compiled = {key: kept for key, kept in self._compiled.items() if key[0] in names}

    def _check(self, target: Target) -> SchemaCheck | None:
        server, tool = target.server, target.local
        rewrite = None if target.overridden is None else target.overridden.rewrite
        key = server.name, tool, 0 if rewrite is None else id(rewrite)
        known = self._compiled.get(key)
        if known is not None and known.source is (rewrite or server.offers):
            return known.check
        if rewrite is not None:
            schema: Mapping[str, Any] | None = rewrite.schema
        else:
            schema = next((each["inputSchema"] for each in server.offers.tools if each["name"] == tool), None)
        if schema is None:
            return None
        is_same = known is not None and known.schema == schema
        check = known.check if known is not None and is_same else _compiled(server.name, tool, schema)
        if len(self._compiled) >= _MAX_KNOWN:
            self._compiled.clear()
        self._compiled[key] = _Known(rewrite or server.offers, schema, check)
        return check


def misfit(schema: Mapping[str, Any], value: Any) -> str | None:
    """What is wrong with a value that is to be sent as an argument with this schema; None for nothing, or unknown."""
    try:
        check = SchemaCheck(schema)
    except UncheckableSchema:
        return None
    if check.is_too_much(len(dump(value))):
        return None
    return next((what for _, what in check.errors(value)), None)


def _compiled(server: str, tool: str, schema: Mapping[str, Any]) -> SchemaCheck | None:
    try:
        return SchemaCheck(schema)
    except UncheckableSchema as error:
        log.warning("arguments of tool %s of server %s are not checked: %s", tool, server, error)
        return None
