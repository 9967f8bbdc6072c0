"""A real Postgres: its schema, brought up to date by whoever comes first."""

import asyncio

import psycopg
import pytest

from gateway.errors import StoreUnavailable
from gateway.stores import postgres as module
from gateway.stores.postgres import Postgres

pytestmark = pytest.mark.anyio


async def test_a_migration_takes_the_time_that_it_takes(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRANSACTION_SECONDS", 0.5)
    postgres = Postgres(database_url)
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute("SELECT pg_advisory_xact_lock(%s)", (module._MIGRATION_LOCK,))
        opening = asyncio.create_task(postgres.open())
        await asyncio.sleep(1)
        assert not opening.done()
        with pytest.raises(StoreUnavailable):
            async with postgres.transaction() as connection:
                await connection.execute("SELECT pg_sleep(5)")
        await other.rollback()
        await opening
    assert postgres.migrated[0] == "001_registry.sql"
    await postgres.close()


async def test_a_database_that_can_only_be_read_is_enough_when_its_schema_is_current(database_url: str) -> None:
    first, second = Postgres(database_url), Postgres(database_url)
    await first.open()
    await first.close()
    name = database_url.partition("/gateway_test")[2].partition("?")[0]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
        await admin.execute(f'ALTER DATABASE "gateway_test{name}" SET default_transaction_read_only = on'.encode())
    await second.open()
    assert second.migrated == []
    await second.close()


async def test_connections_that_take_no_writes_are_left(database_url: str) -> None:
    postgres = Postgres(database_url, size=1)
    await postgres.open()
    async with postgres.transaction() as connection:  # as after a failover: it leads to what is a standby now
        await connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")

    async def write() -> None:
        async with postgres.transaction() as connection:
            await connection.execute("UPDATE registry SET revision = revision + 1")

    with pytest.raises(StoreUnavailable):
        await write()
    await write()
    await postgres.close()


async def test_a_server_that_became_a_standby_is_left_once(database_url: str) -> None:
    postgres = Postgres(database_url, size=1)
    await postgres.open()

    async def backend() -> int:
        async with postgres.transaction() as connection:
            return connection.info.backend_pid

    first = await backend()
    await postgres.saw_standby(False)
    assert await backend() == first
    await postgres.saw_standby(True)
    second = await backend()
    await postgres.saw_standby(True)
    assert second != first
    assert await backend() == second
    await postgres.close()


async def test_a_statement_by_itself_is_committed_on_a_connection_that_stays(database_url: str) -> None:
    postgres = Postgres(database_url, size=1)
    await postgres.open()

    async def pid() -> int:
        await postgres.execute("UPDATE registry SET revision = pg_backend_pid()", ())
        async with postgres.transaction() as connection:
            row = await (await connection.execute("SELECT revision FROM registry")).fetchone()
        return int(row["revision"]) if row else 0

    first = await pid()
    assert await pid() == first
    assert postgres.connections == 2
    with pytest.raises(psycopg.errors.DivisionByZero):
        await postgres.execute("SELECT 1 / %s", (0,))
    assert await pid() == first
    await postgres.close()
    assert postgres._own is None


async def test_a_connection_that_was_lost_is_made_anew(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it rests, nobody hears of it; while it is used, the caller does, and the next one gets another."""
    postgres = Postgres(database_url)
    await postgres.open()

    async def end() -> None:
        async with postgres.transaction() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()"
            )

    await postgres.execute("SELECT 1", ())
    monkeypatch.setattr(module, "_REST_SECONDS", 0.0)
    await end()
    await postgres.execute("SELECT 1", ())
    monkeypatch.setattr(module, "_REST_SECONDS", 60.0)
    await end()
    with pytest.raises(StoreUnavailable):
        await postgres.execute("SELECT 1", ())
    await postgres.execute("SELECT 1", ())
    await postgres.close()


async def test_a_statement_that_is_given_up_is_not_carried_out_later(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHORT", "-c statement_timeout=300")
    postgres = Postgres(database_url)
    await postgres.open()
    late = "WITH late AS MATERIALIZED (SELECT pg_sleep(1)) UPDATE registry SET revision = 77 FROM late"
    with pytest.raises(StoreUnavailable):
        await postgres.execute(late, ())
    monkeypatch.setattr(module, "_TRANSACTION_SECONDS", 0.1)
    with pytest.raises(StoreUnavailable):
        await postgres.execute(late, ())
    monkeypatch.setattr(module, "_TRANSACTION_SECONDS", 5.0)
    await asyncio.sleep(1.5)
    async with postgres.transaction() as connection:
        row = await (await connection.execute("SELECT revision FROM registry")).fetchone()
    assert row is not None
    assert row["revision"] != 77
    await postgres.close()


async def test_after_a_failover_it_is_another_connection_too(database_url: str) -> None:
    postgres = Postgres(database_url)
    await postgres.open()
    await postgres.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", ())
    with pytest.raises(StoreUnavailable):
        await postgres.execute("UPDATE registry SET revision = revision + 1", ())
    await postgres.execute("UPDATE registry SET revision = revision + 1", ())
    await postgres.close()
