"""What one caller sees and calls: a catalogue, narrowed by grants. What a view does not hold does not exist.

The one place where that is decided, for lists and calls in all protocols at all addresses. A view resolves public and
bare names by table. All callers with the same grants share one. At a toolset's address it is narrowed by the toolset's
rules, and by what the caller's grants deny.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol

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
from gateway.model.grants import Grants
from gateway.model.kinds import KINDS
from gateway.model.names import is_strict, near, server_of_uri
from gateway.model.normal_uri import normal_uri
from gateway.model.parts import Part, Target, bare_part
from gateway.model.server import Server
from gateway.model.toolsets import Toolset
from gateway.model.uri_templates import UriTemplate


class Snapshot(Protocol):
    """What a view is made of: a catalogue."""

    @property
    def revision(self) -> int: ...
    @property
    def servers(self) -> Mapping[str, Server]: ...
    @property
    def toolsets(self) -> Mapping[str, Toolset]: ...
    @property
    def strict(self) -> bool: ...
    def view(self, grants: Grants | None, toolset: str | None = None) -> View: ...
    def part(self, server: Server) -> Part: ...
    def public_name(self, kind: str, server: Server, local: str) -> str: ...
    def encoded(self, key: Hashable, encode: Callable[[], bytes]) -> bytes: ...


class View:
    """What callers with these grants (None: all) see of one catalogue, at the general addresses or at a toolset's."""

    def __init__(
        self,
        catalogue: Snapshot,
        grants: Grants | None,
        former: Mapping[str, Part],
        toolset: Toolset | None = None,
    ) -> None:
        """`former` are the parts of the same view of the catalogue before: those of servers that are the same go on."""
        self.catalogue = catalogue
        self.grants = grants
        self.toolset = toolset
        self._former = former
        self._rules = grants if toolset is None else toolset.rules_for(grants)
        self.digest = "" if grants is None else grants.digest
        if toolset is not None:
            self.digest = f"{toolset.slug} {self.digest}"

    # --- what it is made of ---------------------------------------------------------------------------------------

    def build(self) -> Iterator[None]:
        """Make the tables, in steps of a few milliseconds."""
        for table in (lambda: self.public, lambda: self._items, lambda: self._bare, lambda: self._patterns):
            table()
            yield

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """What is seen of each server, oldest first, also of disabled ones."""
        found = ((server.name, self._part(server)) for server in self.catalogue.servers.values())
        parts = {name: part for name, part in found if part is not None}
        self._former = {}
        return parts

    def _part(self, server: Server) -> Part | None:
        former = self._former.get(server.name)
        if former is not None and former.server is server:
            return former
        if self._rules is None:
            return self.catalogue.part(server) if server.is_enabled else bare_part(server)
        part = self.catalogue.part(server).narrowed(self._rules)
        if part is None or self.toolset is None:
            return part
        return self.toolset.part(part, strict=self.catalogue.strict)

    @cached_property
    def size(self) -> int:
        """How many items its tables hold."""
        return sum(len(items) for part in self.parts.values() for items in part.items.values())

    @cached_property
    def _enabled(self) -> list[Part]:
        return [part for part in self.parts.values() if part.server.is_enabled]

    @cached_property
    def public(self) -> Mapping[str, Mapping[str, Target]]:
        """Where each public name leads, by kind."""
        tables: dict[str, dict[str, Target]] = {kind: {} for kind in KINDS}
        for part in self._enabled:
            for kind, names in part.public.items():
                tables[kind].update(names)
        return tables

    @cached_property
    def spills(self) -> bool:
        """Whether results of some tool are kept to be read on."""
        return any(part.spills for part in self._enabled if part.overridden)

    @cached_property
    def _bare(self) -> Mapping[str, Mapping[str, list[Target]]]:
        tables: dict[str, dict[str, list[Target]]] = {"tools": {}, "prompts": {}}
        for kind, table in tables.items():
            for part in self._enabled:
                for target in {target.local: target for target in part.public[kind].values()}.values():
                    table.setdefault(target.shown, []).append(target)
        return tables

    @cached_property
    def _items(self) -> Mapping[str, list[tuple[Server, dict[str, Any]]]]:
        lists: dict[str, list[tuple[Server, dict[str, Any]]]] = {}
        for kind, key in ((kind.name, kind.identity) for kind in KINDS.values()):
            pairs = [pair for part in self._enabled for pair in part.items[kind]]
            pairs.sort(key=lambda pair: str(pair[1][key]))  # at once; of sorted parts it is a merge
            lists[kind] = pairs
        return lists

    @cached_property
    def _patterns(self) -> list[tuple[UriTemplate, Target]]:
        """Templates with where they lead, the narrower before the wider, else the older server's before the newer's."""
        found = [(UriTemplate(target.local), target) for target in self.public["templates"].values()]
        return sorted(found, key=lambda pair: pair[0].width)

    # --- lists ----------------------------------------------------------------------------------------------------

    def encoded(self, key: Hashable, encode: Callable[[], bytes]) -> bytes:
        """What was encoded of this view under a key, which names all that it depends on beside the view; once."""
        return self.catalogue.encoded((self.digest, key), encode)

    def toolsets(self) -> list[Toolset]:
        """The toolsets that may be seen, by slug."""
        there = self.catalogue.toolsets
        return [there[slug] for slug in sorted(there) if self.grants is None or self.grants.gives_toolset(slug)]

    def known(self) -> list[Server]:
        """All servers, also disabled ones, by name."""
        return [self.parts[name].server for name in sorted(self.parts)]

    def visible(self) -> list[Server]:
        """The enabled servers, oldest first."""
        return [part.server for part in self._enabled]

    def items(self, kind: str) -> list[tuple[Server, dict[str, Any]]]:
        """The objects of a kind under their public names, ordered by them."""
        return self._items[kind]

    def changes_since(self, before: View, server: str | None) -> list[str]:
        """The lists that differ, by MCP's names; `server` for one server's own address."""

        def items(view: View, kind: str) -> list[object]:
            if server is None:
                return [item for _, item in view.items(kind)]
            part = view.parts.get(server)
            return [] if part is None else list(part.listed(kind))

        changed = {kind.capability for kind in KINDS.values() if items(before, kind.name) != items(self, kind.name)}
        return sorted(changed)

    # --- names ----------------------------------------------------------------------------------------------------

    def public_name(self, kind: str, server: Server, local: str) -> str:
        """The name under which lists show a tool or prompt here."""
        part = self.parts.get(server.name)
        if self.toolset is not None and part is not None:
            shown = {name for name, target in part.public[kind].items() if target.local == local}
            strict = [name for name in shown if is_strict(name)] if self.catalogue.strict else []
            if shown:
                return min(strict or shown)
        return self.catalogue.public_name(kind, server, local)

    def server(self, name: str) -> Server:
        """Find a registered server. Raises UnknownServer."""
        part = self.parts.get(name)
        if part is None:
            raise UnknownServer(name)
        return part.server

    def enabled_server(self, name: str) -> Server:
        """Find a server that takes calls. Raises UnknownServer or ServerDisabled."""
        server = self.server(name)
        if server.spec.sealed_away:
            raise ServerSealed(name)
        if not server.spec.enabled:
            raise ServerDisabled(name)
        return server

    def tool(self, name: str) -> Target:
        """Resolve a tool's public or bare name. Raises UnknownTool or AmbiguousName."""
        return self._resolve("tools", name, UnknownTool)

    def prompt(self, name: str) -> Target:
        """Resolve a prompt's public or bare name. Raises UnknownPrompt or AmbiguousName."""
        return self._resolve("prompts", name, UnknownPrompt)

    def resource(self, uri: str) -> Target:
        """Resolve a URI: the table first, then templates, narrow ones first. Raises UnknownResource."""
        found = self.public["resources"].get(uri) or self._explicit(uri) or self._by_template(uri)
        if found is None:
            raise UnknownResource(uri)
        return found

    def template(self, uri: str) -> Target:
        """Resolve a resource template, or a URI, as completion references name them. Raises UnknownResource."""
        return self.public["templates"].get(uri) or self.resource(uri)

    def listed_uri(self, uri: str) -> Target | None:
        """Where a URI leads by the lists: to the server that lists it, else to the one with the narrowest template."""
        listed = self.public["resources"].get(uri)
        return listed or next((target for pattern, target in self._patterns if pattern.matches(uri)), None)

    def near(self, kind: str, name: str) -> list[str]:
        """The public names most like a name that leads nowhere.

        `kind` is that of an error: `tool`, `prompt`, `resource`, `server` or `toolset`.
        """
        if kind == "server":
            return near(name, [server.name for server in self.known()])
        if kind == "toolset":
            return near(name, [toolset.slug for toolset in self.toolsets()])
        public = [str(item["uri" if kind == "resource" else "name"]) for _, item in self.items(f"{kind}s")]
        if found := near(name, public):
            return found
        seen = {
            bare: self.public_name(f"{kind}s", targets[0].server, targets[0].local)
            for bare, targets in self._bare.get(f"{kind}s", {}).items()
        }
        bare = name.rpartition("__")[2]  # also a right name with a wrong server before it
        return [seen[bare]] if bare in seen else [seen[each] for each in near(bare, seen)]

    def _resolve(self, kind: str, name: str, unknown: type[UnknownName]) -> Target:
        target = self.public[kind].get(name)
        if target is not None:
            return target
        offered = self._bare[kind].get(name)
        if not offered:
            for part in self.parts.values():
                names = part.server.names.get(kind, {})
                if not part.server.spec.enabled and any(
                    public == name and part.sees(kind, local) for local, public in names.items()
                ):
                    raise ServerDisabled(part.server.name)
            raise unknown(name)
        upstreams = {(each.server.spec.fingerprint, each.server.offers.document.get("key")) for each in offered}
        if len(upstreams) > 1:
            public_name = self.public_name
            raise AmbiguousName(name, [public_name(kind, each.server, each.local) for each in offered])
        return offered[0]

    def _explicit(self, uri: str) -> Target | None:
        named = server_of_uri(uri)
        part = self.parts.get(named[0]) if named else None
        if named is None or part is None or not part.server.is_enabled:
            return None
        local = local_uri(part, named[1])
        return None if local is None else Target(part.server, local)

    def _by_template(self, uri: str) -> Target | None:
        for pattern, target in self._patterns:
            local = local_uri(self.parts[target.server.name], uri) if pattern.matches(uri) else None
            if local is not None:
                return Target(target.server, local)
        return None


def local_uri(part: Part, uri: str) -> str | None:
    """A server's own URI as it is passed on; None for one that may not be seen.

    For who may not see all of the server it is spelled as it was judged.
    """
    if part.grants is None or uri in part.locals["resources"]:
        return uri
    return normal_uri(uri) if part.sees_uri(uri) else None
