"""Toolsets: tools, prompts and resources of several servers at one address, `/mcp/toolsets/{slug}`. Pure.

A toolset's rules are those of grants, and it holds what they give; what a caller's own grants deny is missing from it,
too. Its public names are those of the aggregate (`prefixed`), or the servers' own where these are unique (`bare`).

Who has a bare name is decided once, first come, and stored, so that a name never comes to lead elsewhere: a tool that
finds its bare name taken keeps the aggregate's name for good. What is not decided yet is not shown; that takes as long
as one transaction. A name that an override gives is the tool's in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from gateway.model.grants import Grants
from gateway.model.override_fields import Overrides
from gateway.model.overrides import merged
from gateway.model.parts import NAMED_KINDS, Part, Target

PREFIXED, BARE = "prefixed", "bare"
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,128}")  # what MCP has for tools' names, and what models' APIs take of it

Decided = Mapping[str, Mapping[str, Mapping[str, Sequence[Any]]]]
"""Who has a bare name: by kind, server and local name, the name that was asked for, and whether it is given."""
Members = Iterable[tuple[str, str, Iterable[tuple[str, str]]]]
"""Kind, server, and local names with those at the server's own address."""
Clash = tuple[str, str, str, str]
"""Kind, name, who has it, and who would have it, too."""


@dataclass(frozen=True, slots=True)
class ToolsetSpec:
    """What was stored of a toolset."""

    slug: str
    title: str | None = None
    description: str = ""
    instructions: str | None = None
    """What `initialize` says to a model at this address."""
    enabled: bool = True
    names: str = PREFIXED
    rules: Grants = field(default_factory=Grants)
    """What it holds: `include` as what is allowed, `exclude` as what is denied."""
    mode: str | None = None
    """How its tools are listed where the URL does not say (`model/tool_modes`); None for as the gateway is set."""
    results: Mapping[str, Any] | None = None
    """What becomes of large results of its tools (`model/result_policy`), where their own overrides don't say."""
    pinned: tuple[str, ...] = ()
    """Tools that are listed in any mode, by their names here."""
    overrides: Mapping[str, Overrides] = field(default_factory=dict)
    """What callers see of tools here, on top of the servers' own overrides, by server."""

    @property
    def explicit(self) -> dict[tuple[str, str], str]:
        """The names that overrides give, by server and tool."""
        return {
            (server, tool): override["name"]
            for server, tools in self.overrides.items()
            for tool, override in tools.items()
            if "name" in override and override.get("enabled") is not False
        }

    def public(self) -> dict[str, Any]:
        """The specification as JSON, as it may be sent."""
        return {
            "slug": self.slug,
            "title": self.title,
            "description": self.description,
            "instructions": self.instructions,
            "enabled": self.enabled,
            "names": self.names,
            "include": list(self.rules.source.get("allow", ())),
            "exclude": list(self.rules.source.get("deny", ())),
            "overrides": self.overrides,
            "mode": self.mode,
            "results": self.results,
            "pinned": list(self.pinned),
        }


@dataclass(frozen=True)
class Toolset:
    """One toolset as of one registry revision."""

    spec: ToolsetSpec
    revision: int
    created_at: datetime
    updated_at: datetime
    decided: Decided = field(default_factory=dict)
    """Who has a bare name, where names are bare."""

    @property
    def slug(self) -> str:
        return self.spec.slug

    @property
    def path(self) -> str:
        """What its addresses begin with."""
        return f"/mcp/toolsets/{self.spec.slug}"

    def rules_for(self, grants: Grants | None) -> Grants:
        """What a caller with these grants (None: all) sees of it: its own rules, and what the caller is denied."""
        if grants is None or not grants.deny:
            return self.spec.rules
        rules = self.spec.rules
        return Grants(rules.allow, (*rules.deny, *(rule for rule in grants.deny if rule.toolsets is None)))

    @cached_property
    def given(self) -> Mapping[str, frozenset[str]]:
        """The names that are not the aggregate's, by kind: bare ones, and those of overrides."""
        bare = {kind: frozenset(_owners(self.decided.get(kind, {}))) for kind in NAMED_KINDS}
        return bare | {"tools": bare["tools"] | frozenset(self._explicit.values())}

    @cached_property
    def _explicit(self) -> Mapping[tuple[str, str], str]:
        return self.spec.explicit

    @cached_property
    def _names_given(self) -> frozenset[str]:
        return frozenset(self._explicit.values())

    def part(self, part: Part, *, strict: bool) -> Part:
        """What it shows of a server, of which its rules give `part`."""
        name, overrides = part.server.name, self._overrides_for(part)
        if self.spec.names != BARE and not overrides and self.given["tools"].isdisjoint(part.public["tools"]):
            return part

        def named(kind: str, target: Target, public: str) -> str | None:
            if kind == "tools" and (explicit := self._explicit.get((name, target.local))) is not None:
                return explicit
            if self.spec.names == BARE:
                decided = self.decided.get(kind, {}).get(name, {}).get(target.local)
                if decided is None:
                    return None
                if decided[1] and not (kind == "tools" and decided[0] in self._names_given):
                    return str(decided[0])
            return None if public in self.given[kind] else public

        return part.in_toolset(named, overrides, strict=strict)

    def _overrides_for(self, part: Part) -> Overrides:
        """What changes of a server's tools: with a policy for results it is all of them."""
        overrides = self.spec.overrides.get(part.server.name, {})
        if self.spec.results is None:
            return overrides
        common = {"results": self.spec.results}
        return {local: merged(common, overrides.get(local)) for local, _ in part.named("tools")}

    def is_decided(self, members: Members) -> bool:
        """Whether it is decided of all members who has a bare name."""
        return all(
            (server, local) in self._explicit
            or self.decided.get(kind, {}).get(server, {}).get(local, (None,))[0] == name
            for kind, server, locals in members
            for local, name in locals
        )

    def kept_prefixes(self) -> Iterable[tuple[str, str, str]]:
        """What kept its prefix because its bare name was taken: kind, server and name."""
        for kind, servers in self.decided.items():
            for server, locals in servers.items():
                for name, is_bare in locals.values():
                    if not is_bare and name in self.given[kind]:
                        yield kind, server, name


def decide(
    decided: Decided, members: Members, explicit: Mapping[tuple[str, str], str]
) -> tuple[dict[str, dict[str, dict[str, Sequence[Any]]]], list[Clash]]:
    """Decide who has bare names among `members`, the first come before the others; `explicit` are given already.

    Returns all that is decided, and what clashes.
    """
    made = {kind: {name: dict(locals) for name, locals in servers.items()} for kind, servers in decided.items()}
    owners = {kind: _owners(made.get(kind, {})) for kind in NAMED_KINDS}
    clashes: list[Clash] = []
    givers = {name: server for (server, _), name in explicit.items()}
    members = list(members)
    for kind, server, locals in members:
        for local, _ in locals if kind == "tools" else ():
            name, is_bare = made.get(kind, {}).get(server, {}).get(local, (None, False))
            if is_bare and name in givers and (server, local) not in explicit:
                clashes.append((kind, name, server, f"{givers[name]} (by an override)"))
    owners["tools"] |= {name: f"{server} (by an override)" for (server, _), name in explicit.items()}
    for kind, server, locals in members:
        known = made.setdefault(kind, {}).setdefault(server, {})
        for local, name in locals:
            if (kind == "tools" and (server, local) in explicit) or known.get(local, (None,))[0] == name:
                continue
            owner = owners[kind].setdefault(name, server)
            if owner != server:
                clashes.append((kind, name, owner, server))
            known[local] = [name, owner == server and _PLAIN.fullmatch(name) is not None]
    return made, clashes


def _owners(servers: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, str]:
    return {name: server for server, locals in servers.items() for name, is_bare in locals.values() if is_bare}
