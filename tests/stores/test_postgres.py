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
