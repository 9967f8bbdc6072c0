"""Overrides that are about to be stored: refused where they don't fit the tools that are known, or who sends them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.errors import InvalidParams
from gateway.methods.arguments import misfit
from gateway.methods.call import Call
from gateway.model.override_fields import Overrides
from gateway.model.override_problems import problems
from gateway.model.principals import require_role
from gateway.model.reference_texts import references_in
from gateway.model.server import Server


def check_overrides(
    call: Call, server: Server | None, overrides: Overrides, before: Overrides, below: Overrides | None, at: str
) -> None:
    """Let overrides pass that fit; those of tools that are not there (`server` None: not known) are for later.

    `before` is what stands there now, and is shown as a problem where it does not fit any more, so that it is in
    nobody's way; `below` is what they come on top of. Raises InvalidParams or RoleNeeded.
    """
    if any(override.get("trust") and override != before.get(tool) for tool, override in overrides.items()):
        require_role(call.principal, "admin", "trust hints of an override")
    if server is None:
        return
    changed = {tool: override for tool, override in overrides.items() if override != before.get(tool)}
    for problem in problems(server, overrides, below):
        if not problem.is_absent and (problem.tool in changed or problem.at.endswith(".name")):
            raise InvalidParams(problem.text, f"{at}.{problem.at}")
    for place, why in _values_that_misfit(server, changed):
        raise InvalidParams(f"The server would not take this value: {why}.", f"{at}.{place}")


def _values_that_misfit(server: Server, overrides: Overrides) -> Iterator[tuple[str, str]]:
    """The values and defaults that the tools' schemas refuse."""
    offered = {item["name"]: item["inputSchema"] for item in server.listed("tools") if item["name"] in overrides}
    for tool, schema in offered.items():
        for name, argument in overrides[tool].get("arguments", {}).items():
            part = schema.get("properties", {}).get(name)
            for field in ("value", "default"):
                if field not in argument or not isinstance(part, Mapping) or any(references_in(argument[field])):
                    continue
                if (why := misfit(_alone(schema, part), argument[field])) is not None:
                    yield f"{tool}.arguments.{name}.{field}", why


def _alone(schema: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of one argument by itself, with the definitions that it may refer to."""
    kept = {keyword: schema[keyword] for keyword in ("$schema", "$defs", "definitions") if keyword in schema}
    return kept | {"allOf": [part]}
