"""The four kinds of things that servers offer, and how MCP's revisions spell them: the one table.

Source: MCP 2025-11-25, server features: tools, prompts, resources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: `identity` is the field that tells its items apart, `key` the list's in results of `method`.

    `capability` is what a server declares to have it, and what a change of its list is named after.
    """

    name: str
    identity: str
    capability: str
    method: str
    key: str


KINDS: Mapping[str, Kind] = {
    each.name: each
    for each in (
        Kind("tools", "name", "tools", "tools/list", "tools"),
        Kind("prompts", "name", "prompts", "prompts/list", "prompts"),
        Kind("resources", "uri", "resources", "resources/list", "resources"),
        Kind("templates", "uriTemplate", "resources", "resources/templates/list", "resourceTemplates"),
    )
}
