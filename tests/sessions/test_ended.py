"""Ended sessions in a real Postgres: none is missed, and each is read once."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.model.catalogue import Catalogue
from gateway.sessions.ended import EndedSessions
from gateway.stores.postgres import Postgres

pytestmark = pytest.mark.anyio
FAR = 4_000_000_000


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[Postgres]:
    postgres = Postgres(database_url)
    await postgres.open()
    yield postgres
    await postgres.close()


async def look(postgres: Postgres, ended: EndedSessions) -> None:
    async with postgres.transaction() as connection:
        await ended.catch_up(connection)


async def test_an_end_is_known_at_once_here_and_at_the_next_look_elsewhere(postgres: Postgres) -> None:
    here, there = EndedSessions(postgres), EndedSessions(postgres)
    heard: list[str] = []
    there.on_end(heard.append)
    await here.end("one", FAR)
    await here.end("expired", 1)
    assert "one" in here
    assert "one" not in there
    for _ in range(2):
        await look(postgres, there)
        assert ("one" in there, "expired" in there, heard) == (True, False, ["one"])


async def test_none_is_missed_however_many_end_at_once(postgres: Postgres) -> None:
    here, there = EndedSessions(postgres), EndedSessions(postgres)
    heard: list[str] = []
    there.on_end(heard.append)

    async def watch() -> None:
        while len(heard) < 60:
            await look(postgres, there)

    async with asyncio.timeout(30):
        await asyncio.gather(watch(), *(here.end(f"s{number}", FAR) for number in range(60)))
    assert len(set(heard)) == 60


async def test_another_database_behind_the_address_is_read_from_its_beginning(postgres: Postgres) -> None:
    ended = EndedSessions(postgres)
    await ended.end("before", FAR)
    await look(postgres, ended)
    ended.swapped(Catalogue(7))
    async with postgres.transaction() as connection:
        await connection.execute("TRUNCATE ended_sessions RESTART IDENTITY")
    await EndedSessions(postgres).end("new", FAR)
    await look(postgres, ended)
    assert "new" not in ended
    ended.swapped(Catalogue(1))
    await look(postgres, ended)
    assert "new" in ended
