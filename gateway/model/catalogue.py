"""What this worker offers, as of one registry revision: an immutable snapshot.

Resolves public and bare names by table; a request takes one snapshot and keeps it, so a swap can't be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gateway.errors import (
    AmbiguousName,
    ServerDisabled,
    ServerSealed,
    UnknownName,
    UnknownPrompt,
    UnknownResource,
    UnknownServer,
    UnknownTool,
)
from gateway.model.kinds import KINDS
from gateway.model.names import STRICT, explicit_uri, near, server_of_uri
from gateway.model.principals import Principal, may_see
from gateway.model.server import Server
from gateway.model.uri_templates import UriTemplate

_STEP = 500  # items that are put into a server's part before others have their turn
_MAX_ENCODED = 64
_MAX_ENCODED_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """Where a public name leads."""

    server: Server
    local: str


@dataclass(frozen=True, slots=True)
class _Part:
    """What one server puts into the tables, by kind: where its public names lead, and its items in their order.

    A part is made once for a server as it is, and goes from one catalogue to the next until the server changes.
    """

    server: Server
    public: dict[str, dict[str, Target]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    items: dict[str, list[tuple[Server, dict[str, Any]]]] = field(default_factory=lambda: {kind: [] for kind in KINDS})


@dataclass(frozen=True)
class Catalogue:
    """All registered servers and the tables that lead to them."""

    revision: int = 0
    servers: Mapping[str, Server] = field(default_factory=dict)
    strict: bool = False
    """Whether lists show the second names, of letters, digits, `_` and `-`; either name can be called."""
    _encoded: dict[Hashable, bytes] = field(default_factory=dict, compare=False, repr=False)
    _parts: dict[str, _Part] = field(default_factory=dict, compare=False, repr=False)

    def apply(self, revision: int, changed: Iterable[Server], names: frozenset[str]) -> Catalogue:
        """The next snapshot: `changed` put in, and only `names` kept."""
        servers = {name: server for name, server in self.servers.items() if name in names}
        servers |= {server.name: server for server in changed}
        ordered = sorted(servers.values(), key=lambda server: (server.created_at, server.name))
        parts = {name: part for name, part in self._parts.items() if servers.get(name) is part.server}
        return Catalogue(revision, {server.name: server for server in ordered}, self.strict, _parts=parts)

    def build(self) -> Iterator[None]:
        """Make the tables, in steps of a few milliseconds; what is not made yet is made at its first use."""
        for server in self._enabled:
            if server.name not in self._parts:
                yield from self._make_part(server)
        for table in (lambda: self.public, lambda: self._items, lambda: self._bare, lambda: self._patterns):
            table()
            yield

    def _make_part(self, server: Server) -> Iterator[None]:
        part = _Part(server)
        for kind, key in ((kind.name, kind.identity) for kind in KINDS.values()):
            names, second = server.names.get(kind, {}), server.names.get(STRICT.get(kind, ""), {})
            public, items = part.public[kind], {}
            for number, item in enumerate(getattr(server.offers, kind), 1):
                local = item[key]
                if local in names and local not in items:
                    target = public[names[local]] = Target(server, local)
                    if local in second:
                        public[second[local]] = target
                    shown = (second.get(local) if self.strict else None) or names[local]
                    items[local] = (server, {**item, key: shown})
                if number % _STEP == 0:
                    yield
            part.items[kind] = sorted(items.values(), key=lambda pair: str(pair[1][key]))  # at once
            yield
        self._parts[server.name] = part

    @cached_property
    def _all_parts(self) -> list[_Part]:
        """The parts of the enabled servers, in their order."""
        for server in self._enabled:
            if server.name not in self._parts:
                for _ in self._make_part(server):
                    pass
        return [self._parts[server.name] for server in self._enabled]

    def encoded(self, key: Hashable, encode: Callable[[], bytes]) -> bytes:
        """What was encoded of this snapshot under a key, which names all that it depends on; encoded once.

        A list of a thousand tools takes a millisecond to encode, and every caller and open stream wants the same.
        """
        found = self._encoded.get(key)
        if found is None:
            found = encode()
            held = len(found) + sum(len(each) for each in self._encoded.values())
            if len(self._encoded) >= _MAX_ENCODED or held > _MAX_ENCODED_BYTES:
                self._encoded.clear()  # so many filters and pages are not asked for again and again
            if len(found) <= _MAX_ENCODED_BYTES:
                self._encoded[key] = found
        return found

    def changes_since(self, before: Catalogue, principal: Principal, server: str | None) -> list[str]:
        """The lists that differ, by MCP's names, in what a principal sees; `server` for one server's own address."""

        def items(catalogue: Catalogue, kind: str) -> list[object]:
            if server is None:
                return [item for _, item in catalogue.items(kind, principal)]
            found = catalogue.servers.get(server)
            return list(getattr(found.offers, kind)) if found else []

        changed = {kind.capability for kind in KINDS.values() if items(before, kind.name) != items(self, kind.name)}
        return sorted(changed)

    def public_name(self, kind: str, server: Server, local: str) -> str:
        """The name under which lists show a tool or prompt."""
        second = server.names.get(STRICT[kind], {}).get(local) if self.strict else None
        return second or server.names[kind][local]

    def server(self, name: str, principal: Principal) -> Server:
        """Find a registered server. Raises UnknownServer."""
        server = self.servers.get(name)
        if server is None or not may_see(principal, name):
            raise UnknownServer(name)
        return server

    def enabled_server(self, name: str, principal: Principal) -> Server:
        """Find a server that takes calls. Raises UnknownServer or ServerDisabled."""
        server = self.server(name, principal)
        if server.spec.sealed_away:
            raise ServerSealed(name)
        if not server.spec.enabled:
            raise ServerDisabled(name)
        return server

    def known(self, principal: Principal) -> list[Server]:
        """All servers that the principal may see, also disabled ones, by name."""
        return [self.servers[name] for name in sorted(self.servers) if may_see(principal, name)]

    def visible(self, principal: Principal) -> list[Server]:
        """The enabled servers that the principal may see, oldest first."""
        return [server for server in self._enabled if may_see(principal, server.name)]

    def items(self, kind: str, principal: Principal) -> list[tuple[Server, dict[str, Any]]]:
        """The objects of a kind under their public names, ordered by them."""
        return [pair for pair in self._items[kind] if may_see(principal, pair[0].name)]

    def tool(self, name: str, principal: Principal) -> Target:
        """Resolve a tool's public or bare name. Raises UnknownTool or AmbiguousName."""
        return self._resolve("tools", name, principal, UnknownTool)

    def prompt(self, name: str, principal: Principal) -> Target:
        """Resolve a prompt's public or bare name. Raises UnknownPrompt or AmbiguousName."""
        return self._resolve("prompts", name, principal, UnknownPrompt)

    def resource(self, uri: str, principal: Principal) -> Target:
        """Resolve a URI: the table first, then templates, narrow ones first; what may not be seen is passed over.

        Raises UnknownResource.
        """
        for target in (self.public["resources"].get(uri), self._explicit(uri)):
            if target is not None and may_see(principal, target.server.name):
                return target
        if (by_template := self._by_template(uri, principal)) is None:
            raise UnknownResource(uri)
        return by_template

    def public_uri(self, server: str, uri: str) -> str:
        """The URI that leads to a server's own `uri` here: as it is, unless that leads elsewhere or nowhere."""
        found = self.servers.get(server)
        if found is None:
            return uri
        if (public := found.names.get("resources", {}).get(uri)) is not None:
            return public
        target = self.public["resources"].get(uri)
        if target is None:
            target = next((each for pattern, each in self._patterns if pattern.matches(uri)), None)
        return uri if target is not None and target.server.name == server else explicit_uri(server, uri)

    def renamed_uris(self, server: str) -> Mapping[str, str]:
        """The resources of a server whose URI here is another than its own."""
        return self._renamed.get(server, {})

    def template(self, uri: str, principal: Principal) -> Target:
        """Resolve a resource template, or a URI, as completion references name them. Raises UnknownResource."""
        target = self.public["templates"].get(uri)
        if target is None or not may_see(principal, target.server.name):
            return self.resource(uri, principal)
        return target

    def near(self, kind: str, name: str, principal: Principal) -> list[str]:
        """The public names most like a name that leads nowhere, of what the principal may see.

        `kind` is that of an error: `tool`, `prompt`, `resource` or `server`.
        """
        if kind == "server":
            return near(name, [server.name for server in self.known(principal)])
        public = [str(item["uri" if kind == "resource" else "name"]) for _, item in self.items(f"{kind}s", principal)]
        if found := near(name, public):
            return found
        seen = {
            local: self.public_name(f"{kind}s", targets[0].server, local)
            for local, targets in self._bare.get(f"{kind}s", {}).items()
            if may_see(principal, targets[0].server.name)
        }
        bare = name.rpartition("__")[2]  # also a right name with a wrong server before it
        return [seen[bare]] if bare in seen else [seen[each] for each in near(bare, seen)]

    def _resolve(self, kind: str, name: str, principal: Principal, unknown: type[UnknownName]) -> Target:
        target = self.public[kind].get(name)
        if target is not None and may_see(principal, target.server.name):
            return target
        offered = [each for each in self._bare[kind].get(name, ()) if may_see(principal, each.server.name)]
        if not offered:
            for server in self.known(principal):
                if not server.spec.enabled and name in server.names.get(kind, {}).values():
                    raise ServerDisabled(server.name)
            raise unknown(name)
        if len({each.server.spec.fingerprint for each in offered}) > 1:
            raise AmbiguousName(name, [self.public_name(kind, each.server, each.local) for each in offered])
        return offered[0]

    def _explicit(self, uri: str) -> Target | None:
        named = server_of_uri(uri)
        server = self.servers.get(named[0]) if named else None
        return Target(server, named[1]) if named and server and server in self._enabled else None

    def _by_template(self, uri: str, principal: Principal) -> Target | None:
        for pattern, target in self._patterns:
            if pattern.matches(uri) and may_see(principal, target.server.name):
                return Target(target.server, uri)
        return None

    @cached_property
    def _enabled(self) -> list[Server]:
        return [server for server in self.servers.values() if server.spec.enabled and not server.spec.sealed_away]

    @cached_property
    def public(self) -> Mapping[str, Mapping[str, Target]]:
        """Where each public name leads, by kind; who may see the target is the caller's to ask."""
        tables: dict[str, dict[str, Target]] = {kind: {} for kind in KINDS}
        for part in self._all_parts:
            for kind, names in part.public.items():
                tables[kind].update(names)
        return tables

    @cached_property
    def _renamed(self) -> Mapping[str, Mapping[str, str]]:
        return {
            server.name: {
                local: public for local, public in server.names.get("resources", {}).items() if local != public
            }
            for server in self._enabled
        }

    @cached_property
    def _bare(self) -> Mapping[str, Mapping[str, list[Target]]]:
        tables: dict[str, dict[str, list[Target]]] = {"tools": {}, "prompts": {}}
        for kind, table in tables.items():
            for part in self._all_parts:
                for local, target in {target.local: target for target in part.public[kind].values()}.items():
                    table.setdefault(local, []).append(target)
        return tables

    @cached_property
    def _items(self) -> Mapping[str, list[tuple[Server, dict[str, Any]]]]:
        lists: dict[str, list[tuple[Server, dict[str, Any]]]] = {}
        for kind, key in ((kind.name, kind.identity) for kind in KINDS.values()):
            pairs = [pair for part in self._all_parts for pair in part.items[kind]]
            pairs.sort(key=lambda pair: str(pair[1][key]))  # at once; of sorted parts it is a merge
            lists[kind] = pairs
        return lists

    @cached_property
    def _patterns(self) -> list[tuple[UriTemplate, Target]]:
        """Templates with where they lead, the narrower before the wider, else the older server's before the newer's."""
        found = [(UriTemplate(target.local), target) for target in self.public["templates"].values()]
        return sorted(found, key=lambda pair: pair[0].width)
