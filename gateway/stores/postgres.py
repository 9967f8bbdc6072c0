"""Postgres, bounded: a pool of connections, transactions that end in time, and the schema's migrations.

Raises our StoreUnavailable when Postgres does not answer. Knows no table but that of the migrations and the secret.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from gateway.errors import StoreUnavailable

_MIGRATION_LOCK = 0x6D63702D6777
_TRANSACTION_SECONDS = 5.0
_MIGRATION_SECONDS = 3600.0
_LEAVE_SECONDS = 1.0
_REST_SECONDS = 1.0
_DISCONNECTED = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,  # among them: a read-only standby
    PoolTimeout,
    OSError,
)


log = logging.getLogger("gateway.postgres")


class Connection(psycopg.AsyncConnection[dict[str, Any]]):
    """A connection that is thrown away when a query on it is cancelled.

    psycopg would ask the server to stop the query and wait for that, five seconds each: a frozen server never answers.
    """

    is_left = False
    """Whether another one is to be made in its place."""

    async def _try_cancel(self, *, timeout: float = 5.0) -> None:
        self.pgconn.finish()


_HOW: dict[str, Any] = {
    "row_factory": dict_row,
    "connect_timeout": 2,
    "application_name": "mcp-gateway",
    "options": "-c statement_timeout=10000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=10000",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 8000,
}


_SHORT = "-c statement_timeout=4000 -c lock_timeout=3000"
"""What is given up after _TRANSACTION_SECONDS has been given up by the database before, so that it is not written."""


class Postgres:
    """The database behind a pool of connections, and one beside it for what is written again and again."""

    def __init__(self, url: str, *, size: int = 4) -> None:
        self._url = url
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=size,
            timeout=2,
            reconnect_timeout=5,
            check=AsyncConnectionPool.check_connection,
            connection_class=Connection,
            kwargs=_HOW,
            open=False,
            name="registry",
        )
        self._own: Connection | None = None
        self._used = 0.0
        self._executing = asyncio.Lock()
        self.queries = 0
        self._is_standby = False
        self._left = -math.inf
        self.migrated: list[str] = []

    async def open(self) -> None:
        """Connect and migrate. Raises StoreUnavailable."""
        await self._pool.open()
        self.migrated = await self.migrate()

    async def close(self) -> None:
        await self._drop()
        await self._pool.close(timeout=2)

    async def migrate(self) -> list[str]:
        """Bring the schema up to date; return the files applied. Safe to run from many workers at once.

        A database whose schema is current is only read. Else each file is a transaction, which takes the time that it
        takes: one worker works, the others wait for it. Raises StoreUnavailable.
        """
        files = {file.name: file for file in (resources.files("gateway.stores") / "schema").iterdir()}
        async with self.transaction() as connection:
            done = await _migrations(connection)
        applied = []
        for name in sorted(name for name in files if name.endswith(".sql") and name not in done):
            async with self.transaction(_MIGRATION_SECONDS) as connection:
                await connection.execute("SET LOCAL statement_timeout = 0")
                await connection.execute("SET LOCAL lock_timeout = 0")
                await _lock_for_migration(connection)
                if name in await _migrations(connection):
                    continue
                started = time.monotonic()
                log.info("migration %s begins", name)
                await connection.execute(files[name].read_bytes())
                await connection.execute("INSERT INTO schema_versions (name) VALUES (%s)", (name,))
            log.info("migration %s done in %.1f s", name, time.monotonic() - started)
            applied.append(name)
        return applied

    @property
    def connections(self) -> int:
        """Connections that the pool holds now."""
        return self._pool.get_stats().get("pool_size", 0) + (self._own is not None)

    @asynccontextmanager
    async def transaction(self, seconds: float | None = None) -> AsyncIterator[Connection]:
        """One transaction, committed at the end of the block. Raises StoreUnavailable."""
        self.queries += 1
        try:
            async with asyncio.timeout(seconds or _TRANSACTION_SECONDS), self._pool.connection() as connection:
                yield connection
        except psycopg.errors.ReadOnlySqlTransaction as error:
            await self._leave("it takes no writes")
            raise StoreUnavailable from error
        except (TimeoutError, *_DISCONNECTED) as error:
            raise StoreUnavailable from error

    async def execute(self, query: bytes | str, values: Sequence[Any]) -> None:
        """Carry out one statement, committed by itself, one at a time. Raises StoreUnavailable.

        On a connection of its own: with one of the pool it would take four journeys (whether it lives, begin, commit).
        """
        self.queries += 1
        try:
            async with asyncio.timeout(_TRANSACTION_SECONDS), self._executing:
                own = await self._connection()
                try:
                    await own.execute(query, values)
                except (asyncio.CancelledError, psycopg.errors.ReadOnlySqlTransaction, *_DISCONNECTED):
                    own.is_left = True
                    raise
                self._used = time.monotonic()
        except psycopg.errors.ReadOnlySqlTransaction as error:
            await self._leave("it takes no writes")
            raise StoreUnavailable from error
        except (TimeoutError, *_DISCONNECTED) as error:
            raise StoreUnavailable from error

    async def _connection(self) -> Connection:
        """The connection for `execute`, made anew if it is lost: one that rested may have been, and is asked first."""
        own = self._own
        if own is not None and not (own.is_left or own.closed):
            if time.monotonic() - self._used < _REST_SECONDS:
                return own
            try:
                await AsyncConnectionPool.check_connection(own)
            except _DISCONNECTED:
                pass
            else:
                return own
        await self._drop()
        self._own = await Connection.connect(self._url, autocommit=True, **_HOW | {"options": _SHORT})
        return self._own

    async def _drop(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            await own.close()

    async def saw_standby(self, is_standby: bool) -> None:  # it is a row's value
        """Take note of whether the server that was read from is a standby; one that became that is left."""
        was_standby, self._is_standby = self._is_standby, is_standby
        if is_standby and not was_standby:
            await self._leave("it is a standby")

    async def _leave(self, why: str) -> None:
        """Make all connections anew: after a failover the address leads to another server."""
        if time.monotonic() - self._left >= _LEAVE_SECONDS:
            self._left = time.monotonic()
            log.warning("the database is connected to anew: %s", why)
            if self._own is not None:
                self._own.is_left = True  # whoever uses it now goes on
            await self._pool.drain()

    async def stored_secrets(self) -> list[bytes]:
        """The secret that was made for a gateway that was given none, if there is one. Raises StoreUnavailable."""
        async with self.transaction() as connection:
            return [bytes(row["secret"]) async for row in await connection.execute("SELECT secret FROM secrets")]

    async def own_secret(self) -> bytes:
        """The secret of a gateway that was given none: made once, and kept here. Raises StoreUnavailable."""
        if not await self.stored_secrets():
            async with self.transaction() as connection:
                query = "INSERT INTO secrets (secret) VALUES (%s) ON CONFLICT DO NOTHING"
                await connection.execute(query, (os.urandom(32),))
        [secret] = await self.stored_secrets()
        return secret

    async def identity(self, first: str) -> str:
        """What all replicas call themselves: `first`, the first time. Raises StoreUnavailable."""
        for _ in range(2):
            async with self.transaction() as connection:
                row = await (await connection.execute("SELECT identity FROM deployment")).fetchone()
                if row is not None:
                    return str(row["identity"])
                await connection.execute(
                    "INSERT INTO deployment (identity) VALUES (%s) ON CONFLICT DO NOTHING", (first,)
                )
        raise StoreUnavailable


async def _migrations(connection: Connection) -> set[str]:
    """The files that were applied."""
    cursor = await connection.execute("SELECT to_regclass('schema_versions') AS there")
    row = await cursor.fetchone()
    if row is None or row["there"] is None:
        return set()
    return {row["name"] async for row in await connection.execute("SELECT name FROM schema_versions")}


async def _lock_for_migration(connection: Connection) -> None:
    """Wait until no other worker migrates; then have the table of what was applied."""
    cursor = await connection.execute("SELECT pg_try_advisory_xact_lock(%s) AS ours", (_MIGRATION_LOCK,))
    row = await cursor.fetchone()
    if not (row and row["ours"]):
        log.info("another worker migrates the database; waiting for it")
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_versions "
        "(name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
