"""What one server puts into the tables of a catalogue, and what of it a caller with grants may see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.model.grants import Grants, ServerGrants
from gateway.model.kinds import KINDS
from gateway.model.names import STRICT
from gateway.model.server import Server

_STEP = 500  # items that are put into a server's part before others have their turn

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a public name leads."""

    server: Server
    local: str


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
    locals: Mapping[str, frozenset[str]] | None = None
    """The local names that may be seen, by kind; None for all."""

    def sees(self, kind: str, local: str) -> bool:
        """Tell whether something that the server lists may be seen."""
        return self.locals is None or local in self.locals[kind]

    def sees_uri(self, uri: str) -> bool:
        """Tell whether a URI may be read, listed or not."""
        return self.grants is None or self.grants.sees("resources", uri)

    def listed(self, kind: str) -> list[Item]:
        """What the server lists of a kind, under its own names."""
        key, items = KINDS[kind].identity, getattr(self.server.offers, kind)
        return [item for item in items if self.sees(kind, item[key])]

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
            offered = getattr(server.offers, kind)
            seen[kind] = frozenset(item[key] for item in offered if found.sees(kind, item[key], item))
        if not (found.is_seen or any(seen.values())):
            return None
        public, items = {}, {}
        for kind, key in ((kind.name, kind.identity) for kind in KINDS.values()):
            whole, locals = self.public[kind], seen[kind]
            public[kind] = {name: target for name, target in whole.items() if target.local in locals}
            items[kind] = [pair for pair in self.items[kind] if pair[1][key] in public[kind]]
        return Part(server, public, items, found, seen)


def make_part(server: Server, keep: Callable[[Part], None], *, strict: bool) -> Iterator[None]:
    """Make a server's part, in steps of a few milliseconds, and hand it over at the end."""
    part = Part(server)
    for kind, key in ((kind.name, kind.identity) for kind in KINDS.values()):
        names, second = server.names.get(kind, {}), server.names.get(STRICT.get(kind, ""), {})
        public, items = part.public[kind], {}
        for number, item in enumerate(getattr(server.offers, kind), 1):
            local = item[key]
            if local in names and local not in items:
                target = public[names[local]] = Target(server, local)
                if local in second:
                    public[second[local]] = target
                shown = (second.get(local) if strict else None) or names[local]
                items[local] = (server, {**item, key: shown})
            if number % _STEP == 0:
                yield
        part.items[kind] = sorted(items.values(), key=lambda pair: str(pair[1][key]))  # at once
        yield
    keep(part)
