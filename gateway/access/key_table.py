"""The keys' table in Postgres: the truth of which keys there are.

Every change counts a revision under the lock of one row, so that revisions become visible in their order and a worker
reads what changed since its own. Knows SQL and digests; a key's text is never stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import orjson

from gateway.access.audit import Log
from gateway.errors import KeyIsRevoked, KeyNameTaken, UnknownKey
from gateway.model.api_keys import Key, KeySpec, new_id, new_key
from gateway.model.grants import read_grants
from gateway.model.limits import read_limits
from gateway.stores.postgres import Connection, Postgres

_TOLD_DAYS = 30  # for which a revoked key is told from an unknown one
_AT_ONCE = 1_000  # rows that are read before others have their turn


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What a worker has to know of a key to let it in; times in seconds since the epoch."""

    id: str
    name: str
    role: str
    grants: str | None
    digest: str
    """SHA-256 of its text, in hexadecimal."""
    old_digest: str | None
    old_until: float | None
    expires_at: float | None
    is_revoked: bool
    limits: str | None


class KeyTable:
    """The keys, and the revision that counts their changes; a `log` writes the audit's row of a change."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._reading = asyncio.Semaphore(1)  # for what callers ask: they leave connections to others

    async def create(self, spec: KeySpec, log: Log | None = None) -> tuple[Key, str]:
        """Store a new key; return it, and its text, which nobody can get again. Raises KeyNameTaken."""
        id = new_id()
        text = new_key(id)
        async with self._postgres.transaction() as connection:
            revision = await _count(connection)
            await _check_name(connection, id, spec.name)
            cursor = await connection.execute(
                "INSERT INTO keys (id, name, role, grants, limits, owner, tags, expires_at, digest, revision) VALUES "
                "(%(id)s, %(name)s, %(role)s, %(grants)s, %(limits)s, %(owner)s, %(tags)s, %(expires_at)s, %(digest)s, "
                "%(revision)s) RETURNING *",
                _values(spec) | {"id": id, "digest": digest_of(text), "revision": revision},
            )
            row = await cursor.fetchone()
            assert row is not None, "it was written a moment ago"  # noqa: S101
            key = _key(row)
            if log is not None:
                await log(connection, None, key.public())
            return key, text

    async def get(self, id: str) -> Key:
        """One key. Raises UnknownKey."""
        async with self._reading, self._postgres.transaction() as connection:
            row = await (await connection.execute("SELECT * FROM keys WHERE id = %s", (id,))).fetchone()
        if row is None:
            raise UnknownKey(id)
        return _key(row)

    async def page(self, after: tuple[str, str] | None, limit: int, **only: str | None) -> list[Key]:
        """Keys by name, those after one; `only` those of a `name`, an `owner`, a `role`."""
        where, values = ["(name, id) > (%s, %s)"], [*(after or ("", ""))]
        for field in ("name", "owner", "role"):
            if (value := only.get(field)) is not None:
                where.append(f"{field} = %s")
                values.append(value)
        query = f"SELECT * FROM keys WHERE {' AND '.join(where)} ORDER BY name, id LIMIT %s"  # noqa: S608  # our words
        async with self._postgres.transaction() as connection:
            cursor = await connection.execute(query.encode(), (*values, limit))
            return [_key(row) async for row in cursor]

    async def update(self, id: str, change: Callable[[KeySpec], KeySpec], log: Log | None = None) -> Key:
        """Change a key that is not revoked. Raises UnknownKey, KeyIsRevoked or KeyNameTaken."""
        async with self._postgres.transaction() as connection:
            revision = await _count(connection)
            stored = await _live(connection, id)
            spec = change(stored.spec)
            if spec.name != stored.spec.name:
                await _check_name(connection, id, spec.name)
            cursor = await connection.execute(
                "UPDATE keys SET name = %(name)s, role = %(role)s, grants = %(grants)s, "
                "limits = %(limits)s, owner = %(owner)s, "
                "tags = %(tags)s, expires_at = %(expires_at)s, revision = %(revision)s WHERE id = %(id)s RETURNING *",
                _values(spec) | {"id": id, "revision": revision},
            )
            row = await cursor.fetchone()
            assert row is not None, "it was read a moment ago"  # noqa: S101
            key = _key(row)
            if log is not None:
                await log(connection, stored.public(), key.public())
            return key

    async def rotate(self, id: str, overlap_seconds: int, log: Log | None = None) -> tuple[Key, str]:
        """Give a key a new secret; the one before is taken for so long. Raises UnknownKey or KeyIsRevoked."""
        text = new_key(id)
        async with self._postgres.transaction() as connection:
            revision = await _count(connection)
            stored = await _live(connection, id)
            until = datetime.now(UTC) + timedelta(seconds=overlap_seconds) if overlap_seconds else None
            cursor = await connection.execute(
                "UPDATE keys SET old_digest = CASE WHEN %(until)s::timestamptz IS NULL THEN NULL ELSE digest END, "
                "old_until = %(until)s, digest = %(digest)s, revision = %(revision)s WHERE id = %(id)s RETURNING *",
                {"id": id, "until": until, "digest": digest_of(text), "revision": revision},
            )
            row = await cursor.fetchone()
            assert row is not None, "it was read a moment ago"  # noqa: S101
            key = _key(row)
            if log is not None:
                await log(connection, stored.public(), key.public())
            return key, text

    async def revoke(self, *, id: str | None = None, owner: str | None = None, log: Log | None = None) -> list[Key]:
        """End one key, or all of an owner; those that are revoked already stay as they are. Raises UnknownKey."""
        async with self._postgres.transaction() as connection:
            revision = await _count(connection)
            cursor = await connection.execute(
                "UPDATE keys SET revoked_at = coalesce(revoked_at, now()), "
                "revision = CASE WHEN revoked_at IS NULL THEN %(revision)s ELSE revision END "
                "WHERE id = %(id)s OR owner = %(owner)s RETURNING *, revision = %(revision)s AS is_new",
                {"id": id, "owner": owner, "revision": revision},
            )
            rows = await cursor.fetchall()
            found = [_key(row) for row in rows]
            if not found and id is not None:
                raise UnknownKey(id)
            for key in (_key(row) for row in rows if row["is_new"] and log is not None):
                await log(connection, key.public() | {"revoked_at": None}, key.public())  # type: ignore[misc]
            return found

    async def record_use(self, used: Mapping[str, float]) -> None:
        """Record when keys were last used, in seconds since the epoch. No worker has to know."""
        async with self._postgres.transaction() as connection:
            await connection.execute(
                "UPDATE keys SET last_used_at = greatest(keys.last_used_at, used.at) "
                "FROM unnest(%s::text[], %s::timestamptz[]) AS used (id, at) WHERE keys.id = used.id",
                (list(used), [datetime.fromtimestamp(at, UTC) for at in used.values()]),
            )

    async def revision(self, connection: Connection) -> int:
        """What counts the changes of keys."""
        row = await (await connection.execute("SELECT revision FROM key_changes")).fetchone()
        return int(row["revision"]) if row else 0

    async def changes_since(self, connection: Connection, revision: int) -> list[KeyRow]:
        """The keys that changed after a revision."""
        return await _rows(connection, "revision > %s", (revision,))

    async def load(self, take: Callable[[KeyRow], None]) -> int:
        """Read all keys, some thousand at a time, each in a transaction of its own; return the revision before that.

        Raises StoreUnavailable.
        """
        async with self._postgres.transaction() as connection:
            revision = await self.revision(connection)
        after: str | None = ""
        while after is not None:
            async with self._postgres.transaction() as connection:
                told = "id > %s AND (revoked_at IS NULL OR revoked_at > now() - %s::interval)"
                rows = await _rows(connection, told, (after, f"{_TOLD_DAYS} days"), _AT_ONCE)
            for row in rows:
                take(row)
            after = rows[-1].id if len(rows) == _AT_ONCE else None
        return revision


async def _rows(
    connection: Connection, where: str, values: tuple[object, ...], limit: int | None = None
) -> list[KeyRow]:
    """Rows by id, as one JSON text: made value by value a hundred thousand of them would take seconds."""
    fields = (
        "id, name, role, convert_from(grants, 'UTF8'), encode(digest, 'hex'), encode(old_digest, 'hex'), "
        "extract(epoch FROM old_until), extract(epoch FROM expires_at), revoked_at IS NOT NULL, limits"
    )
    query = (
        f"SELECT coalesce(json_agg(json_build_array({fields})), '[]')::text AS rows "  # noqa: S608  # our own words
        f"FROM (SELECT * FROM keys WHERE {where} ORDER BY id LIMIT %s) AS keys"
    )
    cursor = await connection.execute(query.encode(), (*values, limit))
    row = await cursor.fetchone()
    return [KeyRow(*values) for values in orjson.loads(row["rows"] if row else "[]")]


def digest_of(text: str) -> bytes:
    """What is kept of a key's text."""
    return sha256(text.encode()).digest()


async def _count(connection: Connection) -> int:
    """Count one change. The row lock puts all changes in one order, that of their revisions."""
    cursor = await connection.execute("UPDATE key_changes SET revision = revision + 1 RETURNING revision")
    row = await cursor.fetchone()
    return int(row["revision"]) if row else 0


async def _check_name(connection: Connection, id: str, name: str) -> None:
    """Let a name pass that no other live key has; the lock of `_count` is held. Raises KeyNameTaken."""
    cursor = await connection.execute(
        "SELECT id FROM keys WHERE name = %s AND id <> %s AND revoked_at IS NULL "
        "AND (expires_at IS NULL OR expires_at > now()) LIMIT 1",
        (name, id),
    )
    if (row := await cursor.fetchone()) is not None:
        raise KeyNameTaken(name, row["id"])


async def _live(connection: Connection, id: str) -> Key:
    row = await (await connection.execute("SELECT * FROM keys WHERE id = %s", (id,))).fetchone()
    if row is None:
        raise UnknownKey(id)
    if row["revoked_at"] is not None:
        raise KeyIsRevoked(id)
    return _key(row)


def _values(spec: KeySpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "role": spec.role,
        "grants": None if spec.grants is None else orjson.dumps(spec.grants.source),
        "limits": None if spec.limits is None else orjson.dumps(spec.limits.public()).decode(),
        "owner": spec.owner,
        "tags": list(spec.tags),
        "expires_at": spec.expires_at,
    }


def _key(row: Mapping[str, Any]) -> Key:
    grants = None if row["grants"] is None else read_grants(orjson.loads(row["grants"]))
    limits = None if row["limits"] is None else read_limits(orjson.loads(row["limits"]))
    spec = KeySpec(row["name"], row["role"], limits, grants, row["owner"], tuple(row["tags"]), row["expires_at"])
    return Key(row["id"], spec, row["created_at"], row["revoked_at"], row["last_used_at"], row["old_until"])
