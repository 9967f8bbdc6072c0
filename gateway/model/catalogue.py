"""What this worker knows of all servers, as of one registry revision: an immutable snapshot.

A request takes one snapshot and keeps it, so a swap can't be seen. What a caller sees of it is a `View`: one for all
callers with the same grants at the same address, made when it is first asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from gateway.errors import ToolsetDisabled, UnknownToolset
from gateway.model.grants import Grants
from gateway.model.names import STRICT, explicit_uri
from gateway.model.parts import Part, make_part
from gateway.model.server import Server
from gateway.model.toolsets import Toolset
from gateway.model.view import View

_MAX_ENCODED = 64
_MAX_ENCODED_BYTES = 32 << 20
_MAX_VIEWS = 2_000
_MAX_VIEWED = 500_000  # items in all views together, of which each takes some hundred bytes

_Key = tuple[str | None, str | None]
"""What a view is one of: a toolset's slug, and the digest of grants; None for none."""


@dataclass(frozen=True)
class Catalogue:
    """All registered servers and the tables that lead to them."""

    revision: int = 0
    servers: Mapping[str, Server] = field(default_factory=dict)
    toolsets: Mapping[str, Toolset] = field(default_factory=dict)
    strict: bool = False
    """Whether lists show the second names, of letters, digits, `_` and `-`; either name can be called."""
    _encoded: dict[Hashable, bytes] = field(default_factory=dict, compare=False, repr=False)
    _parts: dict[str, Part] = field(default_factory=dict, compare=False, repr=False)
    _views: OrderedDict[_Key, View] = field(default_factory=OrderedDict, compare=False, repr=False)
    _former: dict[_Key, tuple[Toolset | None, Mapping[str, Part]]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """What views of the catalogue before were made of."""
    _viewed: list[int] = field(default_factory=lambda: [0], compare=False, repr=False)
    """How many items the views hold."""

    def apply(
        self,
        revision: int,
        changed: Iterable[Server],
        names: frozenset[str],
        toolsets: Iterable[Toolset] = (),
        slugs: frozenset[str] = frozenset(),
    ) -> Catalogue:
        """The next snapshot: `changed` servers and `toolsets` put in, and only `names` and `slugs` kept."""
        servers = {name: server for name, server in self.servers.items() if name in names}
        servers |= {server.name: server for server in changed}
        ordered = sorted(servers.values(), key=lambda server: (server.created_at, server.name))
        parts = {name: part for name, part in self._parts.items() if servers.get(name) is part.server}
        former = {key: (view.toolset, view.parts) for key, view in self._views.items()}
        kept = {slug: toolset for slug, toolset in self.toolsets.items() if slug in slugs}
        kept |= {toolset.slug: toolset for toolset in toolsets}
        return Catalogue(
            revision, {server.name: server for server in ordered}, kept, self.strict, _parts=parts, _former=former
        )

    def build(self) -> Iterator[None]:
        """Make the tables of the whole, in steps of a few milliseconds; what is not made is made at its first use."""
        for server in self.servers.values():
            if server.is_enabled and server.name not in self._parts:
                yield from make_part(server, self._keep, strict=self.strict)
        yield from self.whole.build()

    def _keep(self, part: Part) -> None:
        self._parts[part.server.name] = part

    def part(self, server: Server) -> Part:
        """What a server puts into the tables."""
        found = self._parts.get(server.name)
        if found is None:
            for _ in make_part(server, self._keep, strict=self.strict):
                pass
            found = self._parts[server.name]
        return found

    @cached_property
    def whole(self) -> View:
        """What is seen by who may see everything."""
        return View(self, None, {})

    def view(self, grants: Grants | None, toolset: str | None = None) -> View:
        """What is seen with these grants (None for all) at the general addresses, or at a toolset's.

        Raises UnknownToolset, also for one that the grants don't give, or ToolsetDisabled.
        """
        if grants is None and toolset is None:
            return self.whole
        key = toolset, None if grants is None else grants.digest
        found = self._views.get(key)
        if found is None:
            found = self._views[key] = self._made(
                key, grants, None if toolset is None else self._toolset(grants, toolset)
            )
            self._viewed[0] += found.size
            while len(self._views) > 1 and (len(self._views) > _MAX_VIEWS or self._viewed[0] > _MAX_VIEWED):
                self._viewed[0] -= self._views.popitem(last=False)[1].size
        else:
            self._views.move_to_end(key)
        return found

    def _made(self, key: _Key, grants: Grants | None, toolset: Toolset | None) -> View:
        former, parts = self._former.pop(key, (None, {}))
        return View(self, grants, parts if former is toolset else {}, toolset)

    def _toolset(self, grants: Grants | None, slug: str) -> Toolset:
        found = self.toolsets.get(slug)
        if found is None or not (grants is None or grants.gives_toolset(slug)):
            raise UnknownToolset(slug)
        if not found.spec.enabled:
            raise ToolsetDisabled(slug)
        return found

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

    def public_name(self, kind: str, server: Server, local: str) -> str:
        """The name under which lists show a tool or prompt."""
        second = server.names.get(STRICT[kind], {}).get(local) if self.strict else None
        return second or server.names[kind][local]

    def public_uri(self, server: str, uri: str) -> str:
        """The URI that leads to a server's own `uri` here: as it is, unless that leads elsewhere or nowhere."""
        found = self.servers.get(server)
        if found is None:
            return uri
        if (public := found.names.get("resources", {}).get(uri)) is not None:
            return public
        target = self.whole.listed_uri(uri)
        return uri if target is not None and target.server.name == server else explicit_uri(server, uri)

    def renamed_uris(self, server: str) -> Mapping[str, str]:
        """The resources of a server whose URI here is another than its own."""
        return self._renamed.get(server, {})

    @cached_property
    def _renamed(self) -> Mapping[str, Mapping[str, str]]:
        return {
            server.name: {
                local: public for local, public in server.names.get("resources", {}).items() if local != public
            }
            for server in self.servers.values()
            if server.is_enabled
        }
