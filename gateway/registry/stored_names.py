"""The names under which servers' tools, resources and prompts are public, as Postgres keeps them.

Which name a thing gets is decided in `model/names`; here is what has been given away, so that a name once given stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace

from gateway.model import names
from gateway.model.kinds import KINDS
from gateway.model.server import Offers
from gateway.stores.postgres import Connection, Postgres

MAX_NAMES = 20_000
"""Names that a server keeps of one kind: twice as many as a list may have."""
_URIS = frozenset({"resources", "templates"})
_AT_ONCE = 500
_LOCK = 0x6D63702D6E61

Allowed = Callable[[Connection], Awaitable[bool]]


class NotAllowed(Exception):
    """Somebody else names this server's things by now."""


async def assign_names(
    postgres: Postgres, naming: names.Naming, offers: Offers, allowed: Allowed
) -> dict[str, dict[str, str]]:
    """Name what is offered and remember it, some hundred names per transaction, under a lock of the names' own.

    `allowed` says in each transaction whether the caller may still do so, and holds that until its end. Second, strict
    names are given to what has other characters whether or not lists show them (GATEWAY_NAME_CHARS): else replicas
    that differ in that would rename each other's tools. Raises NotAllowed or StoreUnavailable.
    """
    assigned: dict[str, dict[str, str]] = {}
    of_tools, of_others = naming, replace(naming, renamed={})
    for kind, key in ((kind.name, kind.identity) for kind in KINDS.values()):
        locals = [item[key] for item in getattr(offers, kind)]
        naming = of_tools if kind == "tools" else of_others
        assigned[kind] = await _assign_kind(postgres, naming, kind, locals, allowed)
        if kind in names.STRICT:
            plain = assigned[kind]
            odd = [local for local, public in plain.items() if naming.strict(local) != public]
            assigned[names.STRICT[kind]] = await _assign_kind(postgres, naming, names.STRICT[kind], odd, allowed)
    return assigned


async def _assign_kind(
    postgres: Postgres, naming: names.Naming, kind: str, locals: Sequence[str], allowed: Allowed
) -> dict[str, str]:
    async with postgres.transaction() as connection:
        cursor = await connection.execute(
            "SELECT local, public FROM names WHERE server = %s AND kind = %s", (naming.server, kind)
        )
        kept = {row["local"]: row["public"] async for row in cursor}
        current = set(locals)
        gone = {local for local, public in kept.items() if local not in current or (kind in _URIS and public != local)}
        if gone and (kind in _URIS or len(kept) + len(current - kept.keys()) > MAX_NAMES):
            if not await allowed(connection):
                raise NotAllowed
            await _release(connection, naming.server, kind, gone)
            kept = {local: public for local, public in kept.items() if local not in gone}
        fresh = [local for local in dict.fromkeys(locals) if local not in kept]
    for start in range(0, len(fresh), _AT_ONCE):
        async with postgres.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if not await allowed(connection):
                raise NotAllowed
            kept |= await _assign_some(connection, naming, kind, fresh[start : start + _AT_ONCE], kept)
    return {local: kept[local] for local in locals if local in kept}


async def _release(connection: Connection, server: str, kind: str, locals: Collection[str]) -> None:
    """Let go of names of what a server does not offer any more: of URIs, for others, and if there are too many.

    A URI that another server had first is tried again: that one may have let go of it.
    """
    await connection.execute(
        "DELETE FROM names WHERE server = %s AND kind = %s AND local = ANY(%s)", (server, kind, list(locals))
    )


async def _assign_some(
    connection: Connection, naming: names.Naming, kind: str, locals: Sequence[str], kept: dict[str, str]
) -> dict[str, str]:
    """Name what has no name yet; the caller holds the lock."""
    wanted = [_digest(choice(local)) for local in locals for choice in names.choices(naming, kind)]
    cursor = await connection.execute(
        "SELECT public FROM names WHERE kind = ANY(%s) AND digest = ANY(%s)", (_rivals(kind), wanted)
    )
    taken = {row["public"] async for row in cursor}
    made = names.assign(naming, kind, locals, kept, taken.__contains__)
    await connection.execute(
        "INSERT INTO names (kind, digest, public, server, local) "
        "SELECT %s, digest, public, %s, local FROM unnest(%s::bytea[], %s::text[], %s::text[]) "
        "AS made (digest, public, local)",
        (kind, naming.server, [_digest(public) for public in made.values()], list(made.values()), list(made)),
    )
    return made


def _rivals(kind: str) -> list[str]:
    """The kinds among which a name of this kind is unique: one name leads to one thing."""
    for plain, strict in names.STRICT.items():
        if kind in (plain, strict):
            return [plain, strict]
    return [kind]


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
