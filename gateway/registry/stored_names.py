"""The names under which servers' tools, resources and prompts are public, as Postgres keeps them.

Which name a thing gets is decided in `model/names`; here is what has been given away, so that a name once given stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from gateway.model import names
from gateway.model.kinds import KINDS
from gateway.model.server import Offers
from gateway.stores.postgres import Connection


async def assign_names(connection: Connection, naming: names.Naming, offers: Offers) -> dict[str, dict[str, str]]:
    """Name what is offered and remember it; the caller holds the revision's row lock.

    Second, strict names are given to what has other characters whether or not lists show them (GATEWAY_NAME_CHARS):
    else replicas that differ in that would rename each other's tools.
    """
    assigned: dict[str, dict[str, str]] = {}
    for kind, key in ((kind.name, kind.identity) for kind in KINDS.values()):
        locals = [item[key] for item in getattr(offers, kind)]
        assigned[kind] = await _assign_kind(connection, naming, kind, locals)
        if kind in names.STRICT:
            plain = assigned[kind]
            odd = [local for local, public in plain.items() if naming.strict(local) != public]
            assigned[names.STRICT[kind]] = await _assign_kind(connection, naming, names.STRICT[kind], odd)
    return assigned


async def _assign_kind(
    connection: Connection, naming: names.Naming, kind: str, locals: Sequence[str]
) -> dict[str, str]:
    cursor = await connection.execute(
        "SELECT local, public FROM names WHERE server = %s AND kind = %s", (naming.server, kind)
    )
    kept = {row["local"]: row["public"] async for row in cursor}
    fresh = [local for local in locals if local not in kept]
    wanted = [_digest(choice(local)) for local in fresh for choice in names.choices(naming, kind)]
    cursor = await connection.execute(
        "SELECT public FROM names WHERE kind = ANY(%s) AND digest = ANY(%s)", (_rivals(kind), wanted)
    )
    taken = {row["public"] async for row in cursor}
    assigned = names.assign(naming, kind, locals, kept, taken.__contains__)
    made = [(local, public) for local, public in assigned.items() if local not in kept]
    await connection.execute(
        "INSERT INTO names (kind, digest, public, server, local) "
        "SELECT %s, digest, public, %s, local FROM unnest(%s::bytea[], %s::text[], %s::text[]) "
        "AS made (digest, public, local)",
        (
            kind, naming.server, [_digest(public) for _, public in made], [public for _, public in made],
            [local for local, _ in made],
        ),
    )  # fmt: skip
    return assigned


def _rivals(kind: str) -> list[str]:
    """The kinds among which a name of this kind is unique: one name leads to one thing."""
    for plain, strict in names.STRICT.items():
        if kind in (plain, strict):
            return [plain, strict]
    return [kind]


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
