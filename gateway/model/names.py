"""Public names: which one a server's tool, prompt or resource gets.

Assigned once, first come, in the order of the upstream's list, and kept: the caller passes what is taken and what
was assigned before. Never split; looked up in tables.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

STRICT = {"tools": "strict tools", "prompts": "strict prompts"}
"""The kinds of the second names, of letters, digits, `_` and `-`, which some model APIs insist on."""
_OTHER = re.compile(r"[^A-Za-z0-9_-]")
URI_SCHEME = "mcp-gateway://"
_NEAR_LENGTH, _NEAR_EDGES, _NEAR_MOST, _NEAR_WORD = 3, (12, 6, 2), 60, 3
"""What two names share to be compared at all: about the length, and the letters at one end. Comparing costs 20 us."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How names are built for one server."""

    server: str
    prefix: str
    separator: str
    limit: int
    renamed: Mapping[str, str] = field(default_factory=dict)
    """The names that overrides give, by local name."""

    def name(self, local: str) -> str:
        """`<prefix><separator><local>`, or the local name where the prefix is empty; cut with a hash."""
        shown = self.renamed.get(local, local)
        return self._cut(f"{self.prefix}{self.separator}{shown}" if self.prefix else shown, local)

    def other_name(self, local: str) -> str:
        """The name that stands in when another server came first with the first choice."""
        return self._cut(f"{self.name(local)}_{self._hash(local)}", local)

    def strict(self, local: str) -> str:
        """The first choice with every other character replaced by `_`."""
        return self._cut(_OTHER.sub("_", self.name(local)), local)

    def other_strict(self, local: str) -> str:
        """The strict name that stands in when the first choice is taken."""
        return self._cut(f"{self.strict(local)}_{self._hash(local)}", local)

    def uri(self, local: str) -> str:
        """URIs are kept as they are where they are unique."""
        return local

    def other_uri(self, local: str) -> str:
        """The URI that stands in when another server came first with the same one."""
        return explicit_uri(self.server, local)

    def _cut(self, name: str, local: str) -> str:
        if len(name) <= self.limit:
            return name
        return f"{name[: self.limit - 9]}_{self._hash(local)}"

    def _hash(self, local: str) -> str:
        return hashlib.sha256(f"{self.server}\0{local}".encode()).hexdigest()[:8]


def is_strict(name: str) -> bool:
    """Tell whether a name has letters, digits, `_` and `-` only."""
    return _OTHER.search(name) is None


def choices(naming: Naming, kind: str) -> tuple[Callable[[str], str], Callable[[str], str]]:
    """The first and the second choice of a public name for this kind."""
    if kind in ("resources", "templates"):
        return naming.uri, naming.other_uri
    if kind in STRICT.values():
        return naming.strict, naming.other_strict
    return naming.name, naming.other_name


def assign(
    naming: Naming, kind: str, locals: Iterable[str], kept: Mapping[str, str], taken: Callable[[str], bool]
) -> dict[str, str]:
    """Map each local name to its public one.

    `kept` is what this server was assigned before, `taken` tells of names that any server (also this one) holds.
    A local name for which both choices are taken is left out.
    """
    first, second = choices(naming, kind)
    assigned: dict[str, str] = {}
    mine: set[str] = set(kept.values())
    for local in locals:
        if local in assigned:
            continue
        if (public := kept.get(local)) is None:
            public = first(local)
            if public in mine or taken(public):
                public = second(local)
                if public in mine or taken(public):
                    continue
            mine.add(public)
        assigned[local] = public
    return assigned


def near(name: str, there: Iterable[str]) -> list[str]:
    """The names most like one that does not exist, three at most, the best first.

    Costs about 1 us for each name that is there, and 3 ms: anybody can ask for nonsense.
    """
    asked, length = name[:128].casefold(), len(name)
    there = list(there)
    folded = {each.casefold(): each for each in there if abs(len(each) - length) <= _NEAR_LENGTH}
    for edge in _NEAR_EDGES:
        start, end = asked[:edge], asked[-edge:]
        alike = [each for each in folded if each.startswith(start) or each.endswith(end)]
        if found := get_close_matches(asked, alike[:_NEAR_MOST], 3, 0.7):
            return [folded[each] for each in found]
    if length < _NEAR_WORD:
        return []
    return sorted((each for each in there if asked in each.casefold()), key=lambda each: (len(each), each))[:3]


def explicit_uri(server: str, local: str) -> str:
    """The URI that leads to a server's resource whatever others offer."""
    return f"{URI_SCHEME}{server}/{local}"


def server_of_uri(uri: str) -> tuple[str, str] | None:
    """Read `mcp-gateway://<server>/<uri>`; a server's name holds no slash, so this is exact."""
    if not uri.startswith(URI_SCHEME):
        return None
    server, slash, local = uri.removeprefix(URI_SCHEME).partition("/")
    return (server, local) if slash and local else None
