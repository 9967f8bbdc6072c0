"""Arguments checked at the edge, for servers that ask for it: a tool's JSON Schema, compiled once.

A `$ref` is resolved inside the schema only, never fetched; a schema that can't be compiled checks nothing, and the
server judges as it always does. The only importer of jsonschema-rs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from gateway.model.server import Offers, Server

_SHOWN = 5  # errors in one answer

log = logging.getLogger("gateway.schemas")


class ArgumentChecker:
    """The compiled schemas of this worker, by tool; made anew when a tool's definition changed."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[str, str], tuple[Offers, Mapping[str, Any], Any]] = {}

    def wrong(self, server: Server, tool: str, arguments: Mapping[str, Any]) -> list[str]:
        """Say what is wrong with the arguments of a call: `field: what`, at most five."""
        validator = self._validator(server, tool)
        if validator is None:
            return []
        found = []
        for error in validator.iter_errors(dict(arguments)):
            where = ".".join(str(step) for step in error.instance_path) or "arguments"
            found.append(f"{where}: {error.message[:200]}")
            if len(found) == _SHOWN:
                break
        return found

    def forget(self, names: frozenset[str]) -> None:
        """Keep only what belongs to these servers."""
        self._compiled = {key: kept for key, kept in self._compiled.items() if key[0] in names}

    def _validator(self, server: Server, tool: str) -> Any:
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


def _compile(server: str, tool: str, schema: Mapping[str, Any]) -> Any:
    try:
        return jsonschema_rs.validator_for(dict(schema), retriever=_never)
    except (ValueError, jsonschema_rs.ValidationError) as error:
        reason = str(error).partition("\n")[0][:200]
        log.warning("arguments of tool %s of server %s are not checked: %s", tool, server, reason)
        return None


def _never(uri: str) -> Any:
    raise ValueError("references are not fetched")
