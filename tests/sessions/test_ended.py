"""Ended sessions in a real Postgres: none is missed, and none costs anything that grows."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from gateway.errors import StoreUnavailable
from gateway.model.catalogue import Catalogue
from gateway.sessions import ended as module
from gateway.sessions.ended import EndedSessions
from gateway.stores.postgres import Postgres
from tests.fix_proxy import Start

pytestmark = pytest.mark.anyio
FAR = 4_000_000_000


class Worker(EndedSessions):
    """A worker's view: the sessions it knows, and those it heard of."""

    def __init__(self, postgres: Postgres, *known: str) -> None:
        self.known = set(known)
        self.heard: list[str] = []
        self.postgres = postgres
        super().__init__(postgres, lambda: self.known, self.hear)

    def hear(self, key: str) -> None:
        self.heard.append(key)

    async def look(self) -> None:
        async with self.postgres.transaction() as connection:
            await self.catch_up(connection)


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[Postgres]:
    postgres = Postgres(database_url)
    await postgres.open()
    yield postgres
    await postgres.close()


async def execute(postgres: Postgres, query: str, *values: object) -> int:
    async with postgres.transaction() as connection:
        cursor = await connection.execute(query.encode(), values)
        row = await cursor.fetchone() if cursor.description else None
        return next(iter(row.values())) if row else 0


async def count(postgres: Postgres) -> int:
    return await execute(postgres, "SELECT count(*) FROM ended_sessions")


async def test_an_end_is_known_at_once_here_and_at_the_next_look_elsewhere(postgres: Postgres) -> None:
    here, there = Worker(postgres), Worker(postgres)
    await there.look()
    await here.end("one", FAR)
    assert "one" in here
    assert "one" not in there
    for _ in range(2):
        await there.look()
        assert "one" in there
        assert there.heard == ["one"]


async def test_none_is_missed_however_many_end_at_once(postgres: Postgres) -> None:
    here, other, there = Worker(postgres), Worker(postgres), Worker(postgres)
    await there.look()

    async def watch() -> None:
        while len(there.heard) < 120:
            await there.look()

    async with asyncio.timeout(30):
        ends = (each.end(f"{id(each)}-{number}", FAR) for number in range(60) for each in (here, other))
        await asyncio.gather(watch(), *ends)
    assert len(set(there.heard)) == 120


async def test_ends_that_come_together_are_one_transaction(postgres: Postgres) -> None:
    here = Worker(postgres)
    before = postgres.queries
    await asyncio.gather(*(here.end(f"s{number}", FAR) for number in range(500)))
    assert postgres.queries - before <= 2
    assert await count(postgres) == 500


async def test_an_end_that_is_given_up_does_not_lose_those_that_wait_with_it(postgres: Postgres) -> None:
    here = Worker(postgres)
    async with postgres.transaction() as held:
        await held.execute("SELECT pg_advisory_xact_lock(%s)", (module._ORDER_LOCK,))
        first = asyncio.create_task(here.end("first", FAR))
        others = [asyncio.create_task(here.end(f"s{number}", FAR)) for number in range(3)]
        await asyncio.sleep(0.2)
        first.cancel()
        others[0].cancel()
    await asyncio.gather(*others[1:])
    assert all(key in here for key in ("s1", "s2"))
    assert await execute(postgres, "SELECT count(DISTINCT id) FROM ended_sessions WHERE id IN ('s1', 's2')") == 2


async def test_all_that_wait_are_told_when_postgres_does_not_answer(database_url: str, proxy: Start) -> None:
    folder = database_url.partition("host=")[2].replace("%2F", "/")
    way = await proxy(f"{folder}/.s.PGSQL.5432")
    path = database_url.partition("/gateway_test")[2].partition("?")[0]
    postgres = Postgres(f"postgresql://postgres@127.0.0.1:{way.port}/gateway_test{path}")
    await postgres.open()
    here = Worker(postgres)
    way.stall()
    outcomes = await asyncio.gather(*(here.end(f"s{number}", FAR) for number in range(20)), return_exceptions=True)
    way.restore()
    assert all(isinstance(each, StoreUnavailable) for each in outcomes)
    assert "s1" not in here
    await postgres.close()


async def test_ends_do_not_wait_for_the_registry_nor_the_registry_for_them(postgres: Postgres) -> None:
    here = Worker(postgres)
    async with postgres.transaction() as held, asyncio.timeout(4):
        await held.execute("UPDATE registry SET revision = revision + 1")
        await here.end("one", FAR)
    async with postgres.transaction() as held, asyncio.timeout(4):
        await held.execute("SELECT pg_advisory_xact_lock(%s)", (module._ORDER_LOCK,))
        await execute(postgres, "UPDATE registry SET revision = revision + 1")


async def test_a_start_reads_none_and_one_that_can_not_ask_redis_asks_for_the_id(postgres: Postgres) -> None:
    await Worker(postgres).end("old", FAR)
    there = Worker(postgres)
    await there.look()
    assert (there.heard, "old" in there) == ([], False)
    assert await there.has("old")
    assert not await there.has("other")


async def test_a_worker_far_behind_asks_for_the_sessions_that_it_knows(postgres: Postgres) -> None:
    there = Worker(postgres, "mine", "not ended")
    await there.look()
    fill = "INSERT INTO ended_sessions (id, expires) SELECT 'many' || n, 'infinity' FROM generate_series(1, 5000) AS n"
    await execute(postgres, fill)
    await Worker(postgres).end("mine", FAR)
    await there.look()
    assert there.heard == ["mine"]
    await Worker(postgres).end("next", FAR)
    await there.look()
    assert there.heard == ["mine", "next"]


async def test_another_database_behind_the_address_is_asked_for_the_sessions_that_are_known(postgres: Postgres) -> None:
    there = Worker(postgres, "mine")
    await Worker(postgres).end("before", FAR)
    await there.look()
    there.swapped(Catalogue(7))
    await execute(postgres, "TRUNCATE ended_sessions RESTART IDENTITY")
    await Worker(postgres).end("mine", FAR)
    await there.look()
    assert there.heard == []  # its number was read
    there.swapped(Catalogue(1))
    await there.look()
    assert there.heard == ["mine"]


async def test_what_is_kept_in_mind_is_bounded(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 3)
    here = Worker(postgres)
    for number in range(5):
        here.add(f"s{number}")
    assert [f"s{number}" in here for number in range(5)] == [False, False, True, True, True]


async def test_rows_go_a_few_at_a_time_when_they_expired_or_are_too_many(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DELETED_AT_ONCE", 10)
    monkeypatch.setattr(module, "_MAX_ROWS", 20)
    here = Worker(postgres)
    await asyncio.gather(*(here.end(f"gone{number}", time.time() - 1) for number in range(15)))
    await asyncio.gather(*(here.end(f"far{number}", FAR) for number in range(25)))
    async with postgres.transaction() as held:  # another worker is at it
        await held.execute("SELECT pg_advisory_xact_lock(%s)", (module._DELETE_LOCK,))
        assert await here.delete_some() == 0
    assert [await here.delete_some() for _ in range(4)] == [10, 10, 0, 0]
    assert await count(postgres) == 20
    assert await execute(postgres, "SELECT count(*) FROM ended_sessions WHERE id IN ('far4', 'gone14')") == 0


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT FROM ended_sessions WHERE id = 'many7' LIMIT 1", "ended_sessions_id"),
        ("SELECT max(number) FROM ended_sessions", "ended_sessions_pkey"),
        ("SELECT id FROM ended_sessions WHERE number > 99990", "ended_sessions_pkey"),
        ("SELECT number FROM ended_sessions WHERE expires < now() ORDER BY expires LIMIT 10", "ended_sessions_expires"),
    ],
)
async def test_no_look_reads_the_whole_table(postgres: Postgres, query: str, index: str) -> None:
    fill = "INSERT INTO ended_sessions (id, expires) SELECT 'many' || n, now() + n * interval '1 s' - interval '1 min' "
    await execute(postgres, fill + "FROM generate_series(1, 100000) AS n")
    await execute(postgres, "ANALYZE ended_sessions")
    async with postgres.transaction() as connection:
        plan = await (await connection.execute(f"EXPLAIN {query}".encode())).fetchall()
    text = "\n".join(row["QUERY PLAN"] for row in plan)
    assert index in text
    assert "Seq Scan" not in text
