"""What is wrong with overrides, as their server is now: refused when they are stored, shown when it comes later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.model.grants import believed
from gateway.model.override_fields import Overrides
from gateway.model.overrides import Misfit, apply, claims_more, merged
from gateway.model.server import Server


@dataclass(frozen=True, slots=True)
class Problem:
    """`at` is the field below the overrides, `is_absent` says that there is no such tool (yet, or any more)."""

    tool: str
    at: str
    text: str
    is_absent: bool = False


def problems(server: Server, overrides: Overrides, below: Overrides | None = None) -> Iterator[Problem]:
    """What is wrong with overrides of a server's tools; `below` are those that they come on top of."""
    offered = {item["name"]: item for item in server.listed("tools")}
    taken = _names_kept(offered, {**(below or {}), **overrides}) if below is None else {}
    for tool, override in overrides.items():
        item = offered.get(tool)
        if item is None:
            yield Problem(
                tool, tool, f"Server {server.name!r} has no tool {tool!r}, which has an override.", is_absent=True
            )
            continue
        whole = merged(None if below is None else below.get(tool), override)
        doubted = server.judged.doubted.get(tool)
        try:
            apply(item, whole, doubted)
        except Misfit as error:
            yield Problem(tool, f"{tool}.{error.at}", f"The override of {tool!r} does not fit: {error.why}.")
        if not whole.get("trust") and (hints := claims_more(item, override, doubted)):
            yield Problem(
                tool,
                f"{tool}.annotations.{hints[0]}",
                f"The override of {tool!r} claims more safety than its server does ({', '.join(hints)}): "
                'that needs "trust": true, which an administrator sets, again when the server\'s name leads elsewhere.',
            )
        if "cache" in override and not _may_repeat(item, whole, doubted):
            yield Problem(
                tool,
                f"{tool}.cache",
                f"Results of {tool!r} are not kept: it is neither read-only nor idempotent, as is believed.",
            )
        if (name := override.get("name")) in taken and taken[name] != tool:
            yield Problem(
                tool, f"{tool}.name", f"{tool!r} would be named {name!r}, as another tool of {server.name!r} is."
            )


def _may_repeat(item: Mapping[str, Any], override: Mapping[str, Any], doubted: Mapping[str, bool] | None) -> bool:
    hints = believed({"annotations": override.get("annotations")} if override.get("trust") else item)
    if doubted is not None and not override.get("trust"):
        hints = dict(doubted)
    return hints["readOnlyHint"] or hints["idempotentHint"]


def _names_kept(offered: Mapping[str, object], overrides: Overrides) -> dict[str, str]:
    """The names of tools that no override renames."""
    return {name: name for name in offered if "name" not in overrides.get(name, {})}
