import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.errors import ServerExists, ServerSealed, StoreUnavailable, UnknownServer
from gateway.model.keyring import Keyring
from gateway.model.server import Offers, ServerSpec
from gateway.model.server_fields import parse_spec
from gateway.registry import servers as servers_module
from gateway.registry import stored_names
from gateway.registry.servers import TOO_OFTEN, Changes, Claim, NameRules, ServerTable
from gateway.stores.postgres import Postgres
from tests.fix_proxy import Start

pytestmark = pytest.mark.anyio
RULES = NameRules("__", 128)


def offers(*tools: str, **more: Any) -> Offers:
    return Offers(version="2025-11-25", tools=tuple({"name": tool, "inputSchema": {}} for tool in tools), **more)


def always(spec: ServerSpec) -> Callable[[ServerSpec | None], ServerSpec]:
    return lambda stored: spec


def spec(name: str, **more: Any) -> ServerSpec:
    return parse_spec({"name": name, "url": f"http://{name}.test/mcp", **more})


class Store(ServerTable):
    """The registry's tables, on connections of their own."""

    def __init__(self, url: str, *, runs_programs: bool = True) -> None:
        self.postgres = Postgres(url)
        self._runs = runs_programs

    async def open(self, secrets: Sequence[str] = ()) -> Keyring:
        await self.postgres.open()
        keyring = Keyring([each.encode() for each in secrets] or [await self.postgres.own_secret()])
        super().__init__(self.postgres, keyring, runs_programs=self._runs)
        return keyring

    async def close(self) -> None:
        await self.postgres.close()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = Store(database_url)
    await store.open()
    yield store
    await store.close()


async def read(store: Store, since: int = -1) -> Changes:
    changes = await store.changes_since(since)
    assert changes is not None
    return changes


async def record(store: Store, name: str, offered: Offers) -> bool:
    return await store.record_offers(await store.claim(name, 30), offered, RULES, 60)


async def test_many_workers_can_migrate_at_once(database_url: str) -> None:
    stores = [Store(database_url) for _ in range(4)]
    keyrings = await asyncio.gather(*(store.open() for store in stores))
    sealed = keyrings[0].seal("p", b"text")
    assert {keys.open("p", sealed) for keys in keyrings} == {b"text"}
    assert await stores[0].postgres.migrate() == []
    await asyncio.gather(*(store.close() for store in stores))


async def test_each_change_bumps_the_revision_and_is_read_once(store: Store) -> None:
    assert await store.put("a", always(spec("a")), 30)
    first = await read(store)
    assert [server.name for server in first.servers] == ["a"]
    assert await store.changes_since(first.revision) is None
    assert await store.put("b", always(spec("b")), 30)
    second = await read(store, first.revision)
    assert [server.name for server in second.servers] == ["b"]
    await store.remove("a")
    third = await read(store, second.revision)
    assert (third.servers, third.names) == ((), frozenset({"b"}))


async def test_the_very_same_specification_changes_nothing(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    before = await store.revision()
    assert not await store.put("a", always(spec("a")), 30)
    assert await store.revision() == before


async def test_a_refused_change_leaves_nothing_behind(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    before = await store.revision()

    def refuse(stored: ServerSpec | None) -> ServerSpec:
        raise ServerExists("a")

    with pytest.raises(ServerExists):
        await store.put("a", refuse, 30)
    with pytest.raises(UnknownServer):
        await store.remove("nobody")
    assert await store.revision() == before


async def test_two_at_once_under_one_name_are_put_in_order(store: Store) -> None:
    def only_new(stored: ServerSpec | None) -> ServerSpec:
        if stored is not None:
            raise ServerExists("a")
        return spec("a")

    outcomes = await asyncio.gather(*(store.put("a", only_new, 30) for _ in range(5)), return_exceptions=True)
    assert [isinstance(each, Claim) for each in outcomes].count(True) == 1
    assert sum(isinstance(outcome, ServerExists) for outcome in outcomes) == 4


async def test_no_secret_stands_in_the_database_in_clear(store: Store) -> None:
    secret = {"url": "http://a.test/mcp?token=s3cret", "headers": {"Authorization": "Bearer s3cret"}}
    await store.put("a", always(spec("a", **secret)), 30)
    async with store.postgres.transaction() as connection:
        row = await (await connection.execute("SELECT * FROM servers")).fetchone()
    assert "s3cret" not in str(row)
    [server] = (await read(store)).servers
    assert server.spec == spec("a", **secret)
    program = {"transport_type": "stdio", "command": "run", "args": ["--token", "s3cret", "KEY=s3cret"]}
    await store.put("p", always(parse_spec({"name": "p", **program})), 30)
    await store.put("u", always(spec("u", url="http://u.test/s3cret-of-20-letters-x/mcp")), 30)
    async with store.postgres.transaction() as connection:
        rows = await (await connection.execute("SELECT * FROM servers")).fetchall()
    assert "s3cret" not in str(rows)
    assert {server.spec.args for server in (await read(store)).servers} == {(), ("--token", "s3cret", "KEY=s3cret")}


async def test_a_lost_secret_costs_the_headers_and_nothing_else(database_url: str, store: Store) -> None:
    await store.put("a", always(spec("a", headers={"X-Key": "v"})), 30)
    other = Store(database_url)
    await other.open(["x" * 32])
    [server] = (await read(other)).servers
    with pytest.raises(ServerSealed):
        await other.put("a", always(spec("a", tags=["x"])), 30)
    with pytest.raises(ServerSealed):
        await other.claim("a", 30)
    await other.close()
    [kept] = (await read(store)).servers
    assert kept.spec.headers == {"X-Key": "v"}
    assert (server.state, server.spec.sealed_away, server.spec.headers) == ("unreachable", True, {})
    assert "GATEWAY_SECRET" in (server.reason or "")


async def test_of_all_workers_one_claims_a_due_server(store: Store, database_url: str) -> None:
    await store.put("a", always(spec("a")), 0)
    other = Store(database_url)
    await other.open()
    claims = await asyncio.gather(store.claim_due(30), other.claim_due(30))
    await other.close()
    assert sorted(len(each) for each in claims) == [0, 1]


async def test_a_claim_that_ran_out_is_taken_by_the_next(store: Store) -> None:
    await store.put("a", always(spec("a")), 0)
    assert len(await store.claim_due(0)) == 1
    assert len(await store.claim_due(30)) == 1
    assert await store.claim_due(30) == []


async def test_the_same_offers_again_are_no_news(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    assert await record(store, "a", offers("x"))
    revision = await store.revision()
    assert not await record(store, "a", offers("x"))
    assert await store.revision() == revision
    assert await record(store, "a", offers("x", "y"))


async def test_offers_of_another_specification_are_thrown_away(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    claim = await store.claim("a", 30)
    await store.put("a", always(spec("a", url="http://other.test/mcp")), 30)
    assert not await store.record_offers(claim, offers("stale"), RULES, 60)
    assert not await store.record_failure(claim, "stale", RULES, 60)
    [server] = (await read(store)).servers
    assert server.offers.tools == ()
    assert (server.state, server.reason) == ("starting", None)


async def test_a_failure_keeps_the_last_known_lists(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    await record(store, "a", offers("x"))
    assert await store.record_failure(await store.claim("a", 30), "down", RULES, 60)
    assert not await store.record_failure(await store.claim("a", 30), "down", RULES, 60)
    [server] = (await read(store)).servers
    assert (server.state, server.reason, len(server.offers.tools)) == ("unreachable", "down", 1)
    assert server.discovered_at is not None
    assert server.unreachable_since is not None


async def test_public_names_are_first_come_and_kept(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    await record(store, "a", offers("b__c"))
    await store.put("a__b", always(spec("a__b")), 30)
    await record(store, "a__b", offers("c"))
    await record(store, "a", offers("b__c", "new"))
    named = {server.name: server.names["tools"] for server in (await read(store)).servers}
    assert named["a"] == {"b__c": "a__b__c", "new": "a__new"}
    assert named["a__b"]["c"].startswith("a__b__c_")
    await store.remove("a")
    await record(store, "a__b", offers("c", "d"))
    [left] = (await read(store)).servers
    assert left.names["tools"]["c"] == named["a__b"]["c"]
    assert left.public()["renamed"] == {"c": named["a__b"]["c"]}


async def test_a_new_prefix_gives_new_names(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    await record(store, "a", offers("x"))
    await store.put("a", always(spec("a", prefix="team")), 30)
    await record(store, "a", offers("x"))
    [server] = (await read(store)).servers
    assert server.names["tools"] == {"x": "team__x"}


async def test_uris_longer_than_an_index_entry_are_stored(store: Store) -> None:
    long = "file:///" + "x" * 4000
    await store.put("a", always(spec("a")), 30)
    assert await record(store, "a", offers("t", resources=({"uri": long, "name": "long"},)))


async def test_an_older_look_does_not_overwrite_a_newer_one(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    older = await store.claim("a", 30)
    newer = await store.claim("a", 30)
    assert await store.record_offers(newer, offers("new"), RULES, 60)
    assert not await store.record_offers(older, offers("old"), RULES, 60)
    assert not await store.record_failure(older, "gone", RULES, 60)
    [server] = (await read(store)).servers
    assert [tool["name"] for tool in server.offers.tools] == ["new"]


async def test_what_changes_during_a_look_is_looked_at_again(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    claim = await store.claim("a", 30)
    await store.make_due("a")
    assert await store.claim_due(30) == [], "one at a time"
    await store.record_offers(claim, offers("x"), RULES, 3600)
    claims: list[Claim] = []
    async with asyncio.timeout(20):
        while not claims:
            claims = await store.claim_due(30)
            await asyncio.sleep(0.05)


async def test_a_change_of_a_tag_leaves_the_state_alone(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    await record(store, "a", offers("x"))
    await store.put("a", always(spec("a", tags=["new"])), 30)
    [server] = (await read(store)).servers
    assert (server.state, server.spec.tags) == ("ready", ("new",))


async def test_a_read_only_standby_is_an_unavailable_store(store: Store, database_url: str) -> None:
    async with store.postgres.transaction() as connection:
        await connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailable):
        await asyncio.gather(*(store.put(f"s{number}", always(spec(f"s{number}")), 30) for number in range(8)))


async def test_a_frozen_postgres_is_noticed_in_bounded_time(database_url: str, proxy: Start) -> None:
    folder = database_url.partition("host=")[2].replace("%2F", "/")
    link = await proxy(f"{folder}/.s.PGSQL.5432")
    path = database_url.partition("/gateway_test")[2].partition("?")[0]
    store = Store(f"postgresql://postgres@127.0.0.1:{link.port}/gateway_test{path}")
    await store.open()
    link.stall()
    async with asyncio.timeout(15):
        with pytest.raises(StoreUnavailable):
            await store.revision()
    link.restore()
    async with asyncio.timeout(15):
        assert await store.revision() == 0
    await store.close()


async def test_without_postgres_it_says_so_and_heals_with_the_first_request(database_url: str, proxy: Start) -> None:
    folder = database_url.partition("host=")[2].replace("%2F", "/")
    if not folder:
        pytest.fail("this test wants a database behind a Unix socket, as the wheels give it")
    link = await proxy(f"{folder}/.s.PGSQL.5432")
    path = database_url.partition("/gateway_test")[2].partition("?")[0]
    store = Store(f"postgresql://postgres@127.0.0.1:{link.port}/gateway_test{path}")
    await store.open()
    await link.cut()
    with pytest.raises(StoreUnavailable):
        await store.revision()
    link.restore()
    assert await store.revision() == 0
    await store.close()


async def test_a_reason_that_differs_in_times_and_process_ids_only_is_no_news(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    reasons = [
        f"pid {pid} ended at 12:0{pid % 10}:01; log 2026-11-24T12_0{pid}Z, again in {pid % 7} s" for pid in (4711, 4712)
    ]
    assert await store.record_failure(await store.claim("a", 30), reasons[0], RULES, 60)
    revision = await store.revision()
    assert not await store.record_failure(await store.claim("a", 30), reasons[1], RULES, 60)
    assert await store.revision() == revision
    assert await store.record_failure(await store.claim("a", 30), "HTTP 404", RULES, 60)
    assert await store.record_failure(await store.claim("a", 30), "HTTP 500", RULES, 60)


async def test_where_programs_may_not_run_they_are_shown_so(store: Store, database_url: str) -> None:
    await store.put("p", always(ServerSpec("p", transport_type="stdio", command="x")), 30)
    await record(store, "p", offers("t"))
    other = Store(database_url, runs_programs=False)
    await other.open()
    [here], [there] = (await read(store)).servers, (await read(other)).servers
    await other.close()
    assert here.state == "ready"
    assert (there.state, "GATEWAY_ALLOW_STDIO=true" in (there.reason or "")) == ("unreachable", True)


async def test_a_program_that_was_not_run_is_starting_where_programs_are(store: Store, database_url: str) -> None:
    await store.put("p", always(ServerSpec("p", transport_type="stdio", command="x")), 30)
    why = "Server 'p' is a program, and programs are run by `mcp-gateway serve` only, with GATEWAY_ALLOW_STDIO=true."
    await store.record_failure(await store.claim("p", 30), why, RULES, 60)
    [here] = (await read(store)).servers
    assert (here.state, here.reason) == ("starting", None)


async def test_strict_names_are_given_beside_the_first_ones_and_kept(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    assert await record(store, "a", offers("x.y", "x_y", "plain"))
    [server] = (await read(store)).servers
    assert server.names["tools"] == {"x.y": "a__x.y", "x_y": "a__x_y", "plain": "a__plain"}
    second = server.names["strict tools"]
    assert set(second) == {"x.y"}
    assert second["x.y"].startswith("a__x_y_"), "another tool has the first choice"
    assert not await record(store, "a", offers("x.y", "x_y", "plain"))
    await store.put("a", always(spec("a", prefix="b")), 30)
    [server] = (await read(store)).servers
    assert server.names == {}, "another server may have the old ones now"
    await record(store, "a", offers("x.y"))
    [server] = (await read(store)).servers
    assert server.names["strict tools"] == {"x.y": "b__x_y"}


async def test_names_of_what_is_offered_no_more_are_let_go_when_there_are_too_many(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_names, "MAX_NAMES", 10)
    monkeypatch.setattr(stored_names, "_AT_ONCE", 2)
    await store.put("a", always(spec("a")), 30)
    for start in range(0, 20, 4):
        await record(store, "a", offers("always", *(f"t{number}" for number in range(start, start + 4))))
    async with store.postgres.transaction() as connection:
        cursor = await connection.execute("SELECT local FROM names WHERE server = 'a' AND kind = 'tools'")
        left = {row["local"] async for row in cursor}
    assert left == {"always", "t16", "t17", "t18", "t19"}
    [server] = (await read(store)).servers
    assert server.names["tools"] == {local: f"a__{local}" for local in ("always", "t16", "t17", "t18", "t19")}


async def test_lists_that_change_too_often_wait_and_the_newest_win(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers_module, "_CHANGE_SECONDS", 20.0)
    await store.put("a", always(spec("a")), 30)
    await record(store, "a", offers("t0"))
    taken = 0
    for number in range(1, 10):
        claim = replace(await store.claim("a", 30), is_asked_for=False)
        taken += await store.record_offers(claim, offers(f"t{number}"), RULES, 60)
    [server] = (await read(store)).servers
    assert taken == 3  # two changes, and that the next ones wait
    assert (server.state, server.reason, list(server.names["tools"])) == ("ready", TOO_OFTEN, ["t2"])
    await store.make_due("a")
    assert await store.claim_due(30) == []  # it would be asked in vain
    assert await record(store, "a", offers("newest"))  # somebody asked for it
    [server] = (await read(store)).servers
    assert (server.reason, list(server.names["tools"])) == (None, ["newest"])
    claim = replace(await store.claim("a", 30), is_asked_for=False)
    assert await store.record_offers(claim, offers("another"), RULES, 60)
    assert await record(store, "a", offers("newest"))
    [server] = (await read(store)).servers
    assert server.reason is None  # what waits is what is stored


async def test_a_server_that_is_back_is_ready_though_its_lists_wait(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers_module, "_CHANGE_SECONDS", 200.0)
    await store.put("a", always(spec("a")), 30)
    await record(store, "a", offers("t"))
    await store.record_failure(await store.claim("a", 30), "down", RULES, 60)
    claim = replace(await store.claim("a", 30), is_asked_for=False)
    assert await store.record_offers(claim, offers("changed"), RULES, 60)
    [server] = (await read(store)).servers
    assert (server.state, server.reason, server.unreachable_since) == ("ready", TOO_OFTEN, None)
    assert list(server.names["tools"]) == ["t"]


async def test_a_long_list_pays_for_more(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    await record(store, "a", offers(*(f"t{number}" for number in range(6_000))))
    claim = replace(await store.claim("a", 30), is_asked_for=False)
    assert await store.record_offers(claim, offers("short"), RULES, 60)
    [server] = (await read(store)).servers
    assert server.reason == TOO_OFTEN


async def test_naming_holds_nothing_that_others_need(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    async with store.postgres.transaction() as held:
        await held.execute("SELECT pg_advisory_xact_lock(%s)", (stored_names._LOCK,))
        naming = asyncio.create_task(record(store, "a", offers("x")))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(3):
            assert await store.put("b", always(spec("b")), 30)
            assert len((await read(store)).servers) == 2
        assert not naming.done()
    assert await naming


async def test_a_server_that_was_claimed_anew_is_named_no_further(store: Store) -> None:
    await store.put("a", always(spec("a")), 30)
    older = await store.claim("a", 30)
    await store.claim("a", 30)
    assert not await store.record_offers(older, offers("old"), RULES, 60)
    async with store.postgres.transaction() as connection:
        row = await (await connection.execute("SELECT count(*) FROM names")).fetchone()
    assert row == {"count": 0}


async def test_a_uri_that_is_offered_no_more_is_anothers(store: Store) -> None:
    shared = {"uri": "db://7", "name": "seven"}
    for name in ("a", "b"):
        await store.put(name, always(spec(name)), 30)
        await record(store, name, offers(resources=(shared,)))
    b = next(each for each in (await read(store)).servers if each.name == "b")
    assert b.public()["renamed"] == {"db://7": "mcp-gateway://b/db://7"}
    await record(store, "a", offers())
    await record(store, "b", offers("news", resources=(shared,)))
    b = next(each for each in (await read(store)).servers if each.name == "b")
    assert b.names["resources"] == {"db://7": "db://7"}
    assert "renamed" not in b.public()


async def test_what_a_newer_version_wrote_is_read_and_kept(store: Store) -> None:
    await store.put("a", always(spec("a", tags=["x"], headers={"X-Key": "v"})), 30)
    await record(store, "a", offers("t"))
    async with store.postgres.transaction() as connection:
        row = await (await connection.execute("SELECT spec, sealed, offers FROM servers")).fetchone()
        assert row is not None
        hidden = orjson.loads(store._keyring.open("server secrets", bytes(row["sealed"]), "a")) | {"token": "t"}
        changed = (
            orjson.dumps(orjson.loads(row["spec"]) | {"colour": "red"}),
            store._keyring.seal("server secrets", orjson.dumps(hidden), "a"),
            orjson.dumps(orjson.loads(row["offers"]) | {"tasks": [1]}),
        )
        await connection.execute("UPDATE servers SET spec = %s, sealed = %s, offers = %s", changed)
    [server] = (await read(store)).servers
    assert [tool["name"] for tool in server.offers.tools] == ["t"]
    await store.put("a", lambda stored: replace(stored or spec("a"), enabled=False), 30)
    async with store.postgres.transaction() as connection:
        row = await (await connection.execute("SELECT spec, sealed FROM servers")).fetchone()
    assert row is not None
    assert orjson.loads(row["spec"])["colour"] == "red"
    kept = orjson.loads(store._keyring.open("server secrets", bytes(row["sealed"]), "a"))
    assert (kept["token"], kept["headers"]) == ("t", {"X-Key": "v"})
    [server] = (await read(store)).servers
    assert (server.spec.enabled, server.spec.tags) == (False, ("x",))
