"""The registry's revision in Postgres: one row that counts the changes of servers and toolsets."""

from __future__ import annotations

from gateway.stores.postgres import Connection


async def revision_of(connection: Connection) -> int:
    """The revision as of this transaction."""
    row = await (await connection.execute("SELECT revision FROM registry")).fetchone()
    return int(row["revision"]) if row else 0


async def bump(connection: Connection) -> int:
    """Count one change. The row lock puts all changes in one order, that of their revisions."""
    cursor = await connection.execute("UPDATE registry SET revision = revision + 1 RETURNING revision")
    row = await cursor.fetchone()
    return int(row["revision"]) if row else 0
