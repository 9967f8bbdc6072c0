"""What one server puts into the tables of a catalogue, and what of it a caller with grants may see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.model.grants import Grants, ServerGrants, believed
from gateway.model.kinds import KINDS
from gateway.model.names import STRICT, is_strict
from gateway.model.overrides import Misfit, Overridden, Override, apply, merged
from gateway.model.result_policy import SPILL
from gateway.model.server import Server

_STEP = 500  # items that are put into a server's part before others have their turn

NAMED_KINDS = ("tools", "prompts")
"""The kinds whose names may lose their prefix; URIs have none."""

Item = Mapping[str, Any]
Names = Callable[[str, "Target", str], str | None]
"""The name that a toolset has for something of a kind, in place of the aggregate's; None where it is not shown."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a public name leads."""

    server: Server
    local: str
    is_held: bool = False
    """Whether it is a tool that changed since it was approved, and is not called."""
    overridden: Overridden | None = None
    """How it is seen and called in place of what the server says; None for as it says."""

    def is_believed(self, hint: str) -> bool:
        """Whether a hint of a tool is believed to be true: its server's, or an override's, where that is trusted."""
        server, changed = self.server, self.overridden
        if not server.spec.trust_annotations:
            return False
        if changed is not None and not believed(changed.item)[hint]:
            return False
        if changed is not None and changed.override.get("trust"):
            return True
        doubted = server.judged.doubted.get(self.local)
        if doubted is not None:
            return doubted[hint]
        item = next((item for item in server.listed("tools") if item["name"] == self.local), None)
        return believed(item)[hint]

    @property
    def shown(self) -> str:
        """Its name at the server's own address."""
        return self.local if self.overridden is None else self.overridden.item["name"]


@dataclass(frozen=True, slots=True)
class Part:
    """What one server puts into the tables, by kind: where its public names lead, and its items in their order.

    A part is made once for a server as it is, and goes from one catalogue to the next until the server changes.
    """

    server: Server
    public: dict[str, dict[str, Target]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    items: dict[str, list[tuple[Server, dict[str, Any]]]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    grants: ServerGrants | None = None
    """What narrows it; None for who may see all of the server."""
    locals: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The local names that may be seen, of the kinds where not all may."""
    overridden: Mapping[str, Overridden | None] = field(default_factory=dict)
    """The tools under overrides, by local name; None for one that is not served."""

    @property
    def is_whole(self) -> bool:
        """Whether all of the server is seen, whatever it comes to offer."""
        return self.grants is None and not self.locals

    def sees(self, kind: str, local: str) -> bool:
        """Tell whether something that the server lists may be seen."""
        return kind not in self.locals or local in self.locals[kind]

    def sees_uri(self, uri: str) -> bool:
        """Tell whether a URI may be read, listed or not."""
        return self.grants is None or self.grants.sees("resources", uri)

    def listed(self, kind: str) -> list[Item]:
        """What the server lists of a kind, under the names that they have at its own address."""
        return [item for _, item in self.named(kind)]

    @property
    def spills(self) -> bool:
        """Whether results of some tool are kept to be read on."""
        policies = (each.override.get("results", {}) for each in self.overridden.values() if each is not None)
        return any(policy.get("overflow") == SPILL for policy in policies)

    def count(self, kind: str) -> int:
        """How much of a kind is seen."""
        return len(self.locals[kind]) if kind in self.locals else len(self.server.listed(kind))

    def named(self, kind: str) -> Iterator[tuple[str, Item]]:
        """The same with the server's own names."""
        key, changed = KINDS[kind].identity, self.overridden if kind == "tools" else {}
        for item in self.server.listed(kind):
            local = item[key]
            if self.sees(kind, local):
                found = changed.get(local)
                yield local, item if found is None else found.item

    def tool(self, name: str) -> Target | None:
        """Where a tool's name at the server's own address leads; None for one that is not there."""
        local = next((local for local, each in self.overridden.items() if each and each.item["name"] == name), None)
        if local is None and name not in self.overridden:
            local = name
        if local is None or not self.sees("tools", local):
            return None
        return Target(self.server, local, local in self.server.judged.held, self.overridden.get(local))

    def narrowed(self, grants: Grants) -> Part | None:
        """What of it grants give; None for nothing. The part itself where they give all."""
        server = self.server
        found = grants.of_server(server.name, server.spec.tags, trusts=server.spec.trust_annotations)
        if found.is_nothing:
            return None
        if found.is_whole:
            return self
        seen: dict[str, frozenset[str]] = {}
        for kind, key in ((kind.name, kind.identity) for kind in KINDS.values()):
            doubted = server.judged.doubted if kind == "tools" else {}
            seen[kind] = frozenset(
                local
                for local, item in ((item[key], item) for item in server.listed(kind))
                if self.sees(kind, local) and found.sees(kind, local, *self._believed(kind, local, item, doubted))
            )
        if not (found.is_seen or any(seen.values())):
            return None
        public, items = {}, {}
        for kind, key in ((kind.name, kind.identity) for kind in KINDS.values()):
            whole, locals = self.public[kind], seen[kind]
            public[kind] = {name: target for name, target in whole.items() if target.local in locals}
            items[kind] = [pair for pair in self.items[kind] if pair[1][key] in public[kind]]
        return Part(server, public, items, found, seen, self.overridden)

    def _believed(
        self, kind: str, local: str, item: Item, doubted: Mapping[str, Mapping[str, bool]]
    ) -> tuple[Item, Mapping[str, bool] | None]:
        """What is said of a tool, and which of its hints are believed: an override's, where that is trusted."""
        changed = self.overridden.get(local) if kind == "tools" else None
        if changed is not None and changed.override.get("trust"):
            return changed.item, None
        return item, doubted.get(local)

    def in_toolset(self, names: Names, overrides: Mapping[str, Override], *, strict: bool) -> Part:
        """The same as a toolset shows it: under its names, its `overrides` on top of the server's.

        A name that is not `strict` can be called then, and is not shown.
        """
        overridden = {**self.overridden}
        offered = {item["name"]: item for item in self.server.listed("tools")} if overrides else {}
        for local, above in overrides.items():
            item = offered.get(local)
            if item is not None and self.sees("tools", local):
                overridden[local] = overridden_tool(
                    self.server, item, merged(self.server.spec.overrides.get(local), above)
                )
        public, items = {**self.public}, {**self.items}
        for kind in NAMED_KINDS:
            table: dict[str, Target] = {}
            shown = []
            for name, target in self.public[kind].items():
                if kind == "tools" and target.local in overrides:
                    changed = overridden[target.local]
                    if changed is None:
                        continue
                    target = replace(target, overridden=changed)
                if (chosen := names(kind, target, name)) is not None:
                    table[chosen] = target
                    if strict and not is_strict(chosen):
                        table.setdefault(name, target)
            for server, item in self.items[kind]:
                target = self.public[kind][item["name"]]
                chosen = names(kind, target, item["name"])
                if chosen is None or chosen not in table:
                    continue
                if strict and not is_strict(chosen):
                    chosen = item["name"]
                found = table[chosen].overridden
                shown.append((server, {**(item if found is None else found.item), "name": chosen}))
            public[kind] = table
            items[kind] = sorted(shown, key=lambda pair: str(pair[1]["name"]))
        return Part(self.server, public, items, self.grants, self.locals, overridden)


def gives_tool(grants: Grants, target: Target) -> bool:
    """Tell whether grants give one tool: what `narrowed` says of it, without the server's other tools."""
    server, local = target.server, target.local
    found = grants.of_server(server.name, server.spec.tags, trusts=server.spec.trust_annotations)
    if found.is_nothing or found.is_whole:
        return found.is_whole
    item = next(item for item in server.listed("tools") if item["name"] == local)
    if target.overridden is not None and target.overridden.override.get("trust"):
        return found.sees("tools", local, target.overridden.item)
    return found.sees("tools", local, item, server.judged.doubted.get(local))


def bare_part(server: Server) -> Part:
    """What may be seen of a server, without tables."""
    overridden = {
        item["name"]: overridden_tool(server, item, override)
        for item in (server.listed("tools") if server.spec.overrides else ())
        if (override := server.spec.overrides.get(item["name"])) is not None
    }
    if not (server.is_enforced or server.spec.overrides):
        return Part(server)
    given = {each.override.get("name") for each in overridden.values() if each is not None}
    served = frozenset(
        name
        for name in (item["name"] for item in server.listed("tools"))
        if (overridden[name] is not None if name in overridden else name not in given)
    )
    return Part(server, locals={"tools": served}, overridden=overridden)


def overridden_tool(server: Server, item: Item, override: Override) -> Overridden | None:
    """A tool under an override; None for one that is switched off, or that the override does not fit."""
    if override.get("enabled") is False:
        return None
    try:
        return apply(item, override, server.judged.doubted.get(item["name"]))
    except Misfit:
        return None


def make_part(server: Server, keep: Callable[[Part], None], *, strict: bool) -> Iterator[None]:
    """Make a server's part, in steps of a few milliseconds, and hand it over at the end."""
    part = bare_part(server)
    held = server.judged.held
    for kind, key in ((kind.name, kind.identity) for kind in KINDS.values()):
        names, second = server.names.get(kind, {}), server.names.get(STRICT.get(kind, ""), {})
        public, items = part.public[kind], {}
        for number, item in enumerate(server.listed(kind), 1):
            local = item[key]
            if local in names and local not in items and part.sees(kind, local):
                changed = part.overridden.get(local) if kind == "tools" else None
                target = public[names[local]] = Target(server, local, kind == "tools" and local in held, changed)
                if local in second:
                    public[second[local]] = target
                shown = (second.get(local) if strict else None) or names[local]
                items[local] = (server, {**(item if changed is None else changed.item), key: shown})
            if number % _STEP == 0:
                yield
        part.items[kind] = sorted(items.values(), key=lambda pair: str(pair[1][key]))  # at once
        yield
    keep(part)
