"""What this worker knows of all servers, as of one registry revision: an immutable snapshot.

A request takes one snapshot and keeps it, so a swap can't be seen. What a caller sees of it is a `View`: one for all
callers with the same grants, made when it is first asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from gateway.model.grants import Grants
from gateway.model.names import STRICT, explicit_uri
from gateway.model.parts import Part, make_part
from gateway.model.server import Server
from gateway.model.view import View

_MAX_ENCODED = 64
_MAX_ENCODED_BYTES = 32 << 20
_MAX_VIEWS = 2_000
_MAX_VIEWED = 500_000  # items in all views together, of which each takes some hundred bytes


@dataclass(frozen=True)
class Catalogue:
    """All registered servers and the tables that lead to them."""

    revision: int = 0
    servers: Mapping[str, Server] = field(default_factory=dict)
    strict: bool = False
    """Whether lists show the second names, of letters, digits, `_` and `-`; either name can be called."""
    _encoded: dict[Hashable, bytes] = field(default_factory=dict, compare=False, repr=False)
    _parts: dict[str, Part] = field(default_factory=dict, compare=False, repr=False)
    _views: OrderedDict[str, View] = field(default_factory=OrderedDict, compare=False, repr=False)
    _former: dict[str, Mapping[str, Part]] = field(default_factory=dict, compare=False, repr=False)
    """What views of the catalogue before were made of, by the digest of their grants."""
    _viewed: list[int] = field(default_factory=lambda: [0], compare=False, repr=False)
    """How many items the views hold."""

    def apply(self, revision: int, changed: Iterable[Server], names: frozenset[str]) -> Catalogue:
        """The next snapshot: `changed` put in, and only `names` kept."""
        servers = {name: server for name, server in self.servers.items() if name in names}
        servers |= {server.name: server for server in changed}
        ordered = sorted(servers.values(), key=lambda server: (server.created_at, server.name))
        parts = {name: part for name, part in self._parts.items() if servers.get(name) is part.server}
        former = {digest: view.parts for digest, view in self._views.items()}
        return Catalogue(
            revision, {server.name: server for server in ordered}, self.strict, _parts=parts, _former=former
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

    def view(self, grants: Grants | None) -> View:
        """What is seen with these grants; None for all."""
        if grants is None:
            return self.whole
        found = self._views.get(grants.digest)
        if found is None:
            found = self._views[grants.digest] = View(self, grants, self._former.pop(grants.digest, {}))
            self._viewed[0] += found.size
            while len(self._views) > 1 and (len(self._views) > _MAX_VIEWS or self._viewed[0] > _MAX_VIEWED):
                self._viewed[0] -= self._views.popitem(last=False)[1].size
        else:
            self._views.move_to_end(grants.digest)
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
