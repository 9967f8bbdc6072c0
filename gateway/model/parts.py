"""What one server puts into the tables of a catalogue, and what of it a caller with grants may see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.model.grants import Grants, ServerGrants
from gateway.model.kinds import KINDS
from gateway.model.names import STRICT, is_strict
from gateway.model.server import Server

_STEP = 500  # items that are put into a server's part before others have their turn

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a public name leads."""

    server: Server
    local: str
    is_held: bool = False
    """Whether it is a tool that changed since it was approved, and is not called."""


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
        """What the server lists of a kind, under its own names."""
        key = KINDS[kind].identity
        return [item for item in self.server.listed(kind) if self.sees(kind, item[key])]

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
                item[key] for item in server.listed(kind) if found.sees(kind, item[key], item, doubted.get(item[key]))
            )
        if not (found.is_seen or any(seen.values())):
            return None
        public, items = {}, {}
        for kind, key in ((kind.name, kind.identity) for kind in KINDS.values()):
            whole, locals = self.public[kind], seen[kind]
            public[kind] = {name: target for name, target in whole.items() if target.local in locals}
            items[kind] = [pair for pair in self.items[kind] if pair[1][key] in public[kind]]
        return Part(server, public, items, found, seen)

    def renamed(
        self, is_bare: Mapping[str, Mapping[str, bool]], taken: Mapping[str, frozenset[str]], *, strict: bool
    ) -> Part:
        """The same under other names: by kind, who has its local name alone; of those not named there nothing.

        `taken` are all such names: a name with a prefix that is among them leads to another server's. A name that is
        not `strict` can be called then, and is not shown.
        """
        public, items = {**self.public}, {**self.items}
        for kind, names in is_bare.items():
            whole = self.public[kind]
            public[kind] = {
                name: target
                for name, target in whole.items()
                if names.get(target.local) is False and name not in taken[kind]
            }
            public[kind] |= {target.local: target for target in whole.values() if names.get(target.local)}
            shown = []
            for server, item in self.items[kind]:
                local = whole[item["name"]].local
                if names.get(local) and (is_strict(local) or not strict):
                    shown.append((server, {**item, "name": local}))
                elif local in names and item["name"] not in taken[kind]:
                    public[kind][item["name"]] = whole[item["name"]]
                    shown.append((server, item))
            items[kind] = sorted(shown, key=lambda pair: str(pair[1]["name"]))
        return Part(self.server, public, items, self.grants, self.locals)


def gives_tool(grants: Grants, target: Target) -> bool:
    """Tell whether grants give one tool: what `narrowed` says of it, without the server's other tools."""
    server, local = target.server, target.local
    found = grants.of_server(server.name, server.spec.tags, trusts=server.spec.trust_annotations)
    if found.is_nothing or found.is_whole:
        return found.is_whole
    item = next(item for item in server.listed("tools") if item["name"] == local)
    return found.sees("tools", local, item, server.judged.doubted.get(local))


def bare_part(server: Server) -> Part:
    """What may be seen of a server, without tables."""
    if server.is_enforced:
        return Part(server, locals={"tools": frozenset(tool["name"] for tool in server.listed("tools"))})
    return Part(server)


def make_part(server: Server, keep: Callable[[Part], None], *, strict: bool) -> Iterator[None]:
    """Make a server's part, in steps of a few milliseconds, and hand it over at the end."""
    part = bare_part(server)
    held = server.judged.held
    for kind, key in ((kind.name, kind.identity) for kind in KINDS.values()):
        names, second = server.names.get(kind, {}), server.names.get(STRICT.get(kind, ""), {})
        public, items = part.public[kind], {}
        for number, item in enumerate(server.listed(kind), 1):
            local = item[key]
            if local in names and local not in items:
                target = public[names[local]] = Target(server, local, kind == "tools" and local in held)
                if local in second:
                    public[second[local]] = target
                shown = (second.get(local) if strict else None) or names[local]
                items[local] = (server, {**item, key: shown})
            if number % _STEP == 0:
                yield
        part.items[kind] = sorted(items.values(), key=lambda pair: str(pair[1][key]))  # at once
        yield
    keep(part)
