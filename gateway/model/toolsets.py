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
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import orjson

from gateway.errors import InvalidParams
from gateway.model.grants import Grants, Rule, read_rules
from gateway.model.override_fields import Overrides, read_overrides_of_servers
from gateway.model.overrides import merged
from gateway.model.parts import NAMED_KINDS, Part, Target
from gateway.model.reference_texts import references_in
from gateway.model.result_policy import read_policy
from gateway.model.tool_modes import MODES

PREFIXED, BARE = "prefixed", "bare"
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,128}")  # what MCP has for tools' names, and what models' APIs take of it
_MAX_BYTES = 256 << 10  # of the rules of one toolset
_MAX_PINNED, _MAX_NAME = 100, 512
_READ_ONLY = frozenset(  # what GET shows may be PUT back
    {"state", "problems", "servers", "counts", "created_at", "updated_at", "revision", "url"}
)

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
                if decided[1]:
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
    owners["tools"] |= {name: f"{server} (by an override)" for (server, _), name in explicit.items()}
    clashes: list[Clash] = []
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


def is_slug(value: str) -> bool:
    """Tell whether a toolset can have this slug at all."""
    return _SLUG.fullmatch(value) is not None


def parse_toolset(params: Mapping[str, Any]) -> ToolsetSpec:
    """Read a whole specification. Raises InvalidParams, naming the field."""
    values = read_toolset_fields(params)
    if "slug" not in values:
        raise InvalidParams("The field 'slug' is required.", "slug")
    return ToolsetSpec(**values)


def patch_toolset(stored: ToolsetSpec, params: Mapping[str, Any]) -> ToolsetSpec:
    """Change some fields of a specification; the slug stays. Raises InvalidParams."""
    values = read_toolset_fields(params, stored.rules)
    if values.get("slug", stored.slug) != stored.slug:
        raise InvalidParams("A toolset's slug can't be changed: it is in the addresses that clients have.", "slug")
    return replace(stored, **values)


def read_toolset_fields(params: Mapping[str, Any], rules: Grants | None = None) -> dict[str, Any]:
    """Check the fields that are there, `rules` in place of those that are not. Raises InvalidParams."""
    values: dict[str, Any] = {}
    for name, value in params.items():
        if name in _READ_ONLY:
            continue
        if name in ("include", "exclude"):
            continue
        if name not in _READERS:
            known = ", ".join((*_READERS, "include", "exclude"))
            raise InvalidParams(f"There is no field {name[:64]!r}; a toolset takes {known}.", name[:64])
        values[name] = _READERS[name](value, name)
    if "include" in params or "exclude" in params:
        values["rules"] = _read_rules(params, rules)
    return values


def from_stored(document: Mapping[str, Any]) -> ToolsetSpec:
    """Read what was stored; fields that only a newer version knows are passed over. Raises InvalidParams."""
    known = {each.name for each in fields(ToolsetSpec)} | {"include", "exclude"}
    return parse_toolset({name: value for name, value in document.items() if name in known})


def _read_rules(params: Mapping[str, Any], stored: Grants | None) -> Grants:
    source, read = {} if stored is None else dict(stored.source), {}
    for field_name, kind in (("include", "allow"), ("exclude", "deny")):
        if field_name in params:
            source[kind] = [] if params[field_name] is None else params[field_name]
        read[kind] = _rules(source.get(kind, []), field_name)
    if len(orjson.dumps(source)) > _MAX_BYTES:
        raise InvalidParams(f"'include' and 'exclude' must take at most {_MAX_BYTES} bytes.", "include")
    return Grants(read["allow"], read["deny"], source)


def _rules(value: Any, at: str) -> tuple[Rule, ...]:
    rules = read_rules(value, at)
    for number, rule in enumerate(rules):
        if rule.toolsets is not None:
            raise InvalidParams(f"'{at}[{number}]' has 'toolsets': a toolset holds no other.", f"{at}[{number}]")
    return rules


def _owners(servers: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, str]:
    return {name: server for server, locals in servers.items() for name, is_bare in locals.values() if is_bare}


def _read_overrides(value: Any, at: str) -> Mapping[str, Overrides]:
    read = read_overrides_of_servers(value, at)
    if any(references_in(read)):
        raise InvalidParams(f"'{at}' has a reference to a secret: those stand in the overrides of a server.", at)
    return read


def _read_slug(value: Any, at: str) -> str:
    if not isinstance(value, str) or not is_slug(value):
        raise InvalidParams(
            "A slug has 1 to 63 small letters, digits, '-' or '_', and starts with a letter or digit "
            "(`title` is free text).",
            at,
        )
    return value


def _text(limit: int, *, optional: bool) -> Any:
    def read(value: Any, at: str) -> str | None:
        if value is None:
            return None if optional else ""
        if not isinstance(value, str) or len(value) > limit:
            raise InvalidParams(f"{at!r} must be a string of at most {limit} characters.", at)
        return value

    return read


def _read_flag(value: Any, at: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidParams(f"{at!r} must be true or false.", at)
    return value


def _read_names(value: Any, at: str) -> str:
    if value not in (PREFIXED, BARE):
        raise InvalidParams(f"{at!r} must be '{PREFIXED}' (names as at /mcp) or '{BARE}' (without prefix).", at)
    return str(value)


def _read_mode(value: Any, at: str) -> str | None:
    if value is not None and value not in MODES:
        raise InvalidParams(f"{at!r} must be one of {', '.join(MODES)}, or null for the gateway's.", at)
    return None if value is None else str(value)


def _read_pinned(value: Any, at: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MAX_PINNED:
        raise InvalidParams(f"{at!r} must be a list of at most {_MAX_PINNED} names.", at)
    if not all(isinstance(each, str) and 1 <= len(each) <= _MAX_NAME for each in value):
        raise InvalidParams(f"Each of {at!r} must be a tool's name of 1 to {_MAX_NAME} characters.", at)
    return tuple(dict.fromkeys(value))


_READERS: Mapping[str, Any] = {
    "slug": _read_slug,
    "title": _text(200, optional=True),
    "description": _text(4000, optional=False),
    "instructions": _text(16_000, optional=True),
    "enabled": _read_flag,
    "names": _read_names,
    "overrides": _read_overrides,
    "mode": _read_mode,
    "results": lambda value, at: None if value is None else read_policy(value, at) or None,
    "pinned": _read_pinned,
}
