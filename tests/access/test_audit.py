"""The audit: rows of calls and changes, who reads which, what is masked, what is lost and counted."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.access import audit as audit_module
from gateway.errors import StoreUnavailable
from gateway.methods.services import Gateway
from gateway.model.masking import masked
from gateway.model.principals import Principal
from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import ask, handshake, request
from tests.talk import inside as inside_app
from tests.waiting import until

pytestmark = pytest.mark.anyio


def inside(client: Client) -> Gateway:
    return inside_app(client.app)  # type: ignore[arg-type]


async def made(client: Client, name: str = "agent", **fields: Any) -> tuple[str, Client]:
    value = {"name": name, "grants": {"allow": [{"servers": ["*"]}]}, **fields}
    _, _, key = await client.ask("POST", "/keys", value=value)
    return key["id"], Client(client.app, key["key"])


async def rows(client: Client, query: str = "") -> list[dict[str, Any]]:
    await inside(client).audit.flush()
    status, _, found = await client.ask("GET", f"/audit{query}")
    assert status == 200, found
    return list(found["rows"])


async def test_each_call_has_a_row_in_every_protocol(client: Client, registered: MemoryServer) -> None:
    id, agent = await made(client)
    session = await handshake(agent)
    own = await handshake(agent, "/mcp/servers/demo/mcp")
    await ask(agent, "/mcp", session, "tools/call", name="demo__echo", arguments={"a": 1})
    await ask(agent, "/mcp/servers/demo/mcp", own, "tools/call", name="echo")
    body = request("tools/call", name="echo")
    await agent.ask("POST", "/rpc", value=[body, {**body, "id": 2}])
    _, headers, _ = await agent.ask("POST", "/mcp/tools/call", value={"name": "echo"})
    await ask(agent, "/mcp", session, "tools/list")  # is no call
    found = await rows(client, "?kind=call")
    assert [each["address"] for each in found] == [
        "/mcp/tools/call", "/rpc", "/rpc", "/mcp/servers/demo/mcp", "/mcp",
    ]  # fmt: skip
    for each in found:
        assert (each["principal"], each["key_id"], each["server"], each["tool"], each["outcome"]) == (
            "agent", id, "demo", "echo", "ok",
        )  # fmt: skip
        assert each["bytes"] > 0
        assert each["replica"] == "test"
        assert each["ms"] >= 0
        assert "arguments" not in each
    assert found[0]["request_id"] == headers["x-request-id"]
    assert await rows(client, f"?request_id={headers['x-request-id']}") == found[:1]
    assert found[-1]["arguments_digest"] != found[0]["arguments_digest"] is None


async def test_what_came_of_a_call(client: Client, registered: MemoryServer) -> None:
    _, agent = await made(client, limits={"calls_per_second": 0.01, "burst": 3})

    async def fails(*_: Any) -> Any:
        return {"content": [], "isError": True}

    registered.tools["fails"] = fails
    await client.ask("POST", "/mcp/servers/demo/refresh")
    for name in ("demo__fails", "nothing"):
        await agent.ask("POST", "/mcp/tools/call", value={"name": name})
    registered.down = "gone"
    await agent.ask("POST", "/mcp/tools/call", value={"name": "echo"})
    for _ in range(4):
        await agent.ask("POST", "/mcp/tools/call", value={"name": "echo"})
    outcomes = [each["outcome"] for each in reversed(await rows(client, "?kind=call"))]
    assert outcomes[:3] == ["tool_error", "unknown", "unreachable"]
    assert outcomes[-1] == "limited"
    assert len(await rows(client, "?outcome=limited")) == outcomes.count("limited")


async def test_each_change_has_a_row_with_what_was_before_and_after(client: Client, servers: Servers) -> None:
    servers["demo"] = MemoryServer()
    value = {"name": "demo", "url": "http://demo.test/mcp", "headers": {"X-Key": "secret-value"}}
    await client.ask("POST", "/mcp/servers", value=value)
    await client.ask("POST", "/mcp/servers", value=value)  # changes nothing
    await client.ask("PATCH", "/mcp/servers/demo", value={"title": "Demo"})
    id, _ = await made(client, owner="ann")
    await client.ask("PATCH", f"/keys/{id}", value={"owner": "bob"})
    _, _, new = await client.ask("POST", f"/keys/{id}/rotate", value={})
    await client.ask("DELETE", "/keys?owner=bob")
    await client.ask("DELETE", f"/keys/{id}")  # changes nothing
    await client.ask("DELETE", "/mcp/servers/demo")
    assert (await client.ask("DELETE", "/mcp/servers/demo"))[0] == 404
    found = list(reversed(await rows(client, "?kind=change")))
    assert [(each["method"], each["target"]) for each in found] == [
        ("mcp.servers.register", "server:demo"),
        ("mcp.servers.update", "server:demo"),
        ("mcp.keys.create", f"key:{id}"),
        ("mcp.keys.update", f"key:{id}"),
        ("mcp.keys.rotate", f"key:{id}"),
        ("mcp.keys.revoke", f"key:{id}"),
        ("mcp.servers.remove", "server:demo"),
    ]
    assert found[0]["before"] is None
    assert (found[1]["before"]["title"], found[1]["after"]["title"]) == (None, "Demo")
    assert (found[3]["before"]["owner"], found[3]["after"]["owner"]) == ("ann", "bob")
    assert (found[5]["before"]["revoked_at"], found[5]["after"]["revoked_at"] is not None) == (None, True)
    assert found[6]["after"] is None
    assert {each["principal"] for each in found} == {"master"}
    assert "secret-value" not in json.dumps(found)
    assert new["key"] not in json.dumps(found)


async def test_a_change_that_is_refused_has_no_row(client: Client) -> None:
    await made(client, "one")
    assert (await client.ask("POST", "/keys", value={"name": "one"}))[0] == 409
    assert len(await rows(client, "?kind=change")) == 1


async def test_a_user_gets_its_own_rows_and_nobody_elses(client: Client, registered: MemoryServer) -> None:
    id, agent = await made(client)
    other_id, other = await made(client, "other")
    for each in (agent, other, other):
        await each.ask("POST", "/mcp/tools/call", value={"name": "echo"})
    assert len(await rows(client, "?kind=call")) == 3
    assert {each["key_id"] for each in await rows(agent)} == {id}
    for query in (f"?key_id={other_id}", "?principal=other", "?principal=master", "?kind=change"):
        assert await rows(agent, query) == []
    assert len(await rows(other)) == 2
    _, operator = await made(client, "operator", role="operator", grants=None)
    assert len(await rows(operator, "?kind=call")) == 3


async def test_rows_have_pages_and_times(client: Client, registered: MemoryServer) -> None:
    for _ in range(5):
        await client.ask("POST", "/mcp/tools/call", value={"name": "echo"})
    everything = await rows(client, "?kind=call")
    seen: list[Any] = []
    cursor: Any = ""
    while cursor is not None:
        _, _, page = await client.ask("GET", f"/audit?kind=call&limit=2&cursor={cursor}")
        seen += page["rows"]
        cursor = page["next_cursor"]
    assert seen == everything
    hour = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert await rows(client, f"?since={hour}") == []
    assert len(await rows(client, f"?until={hour}&kind=call")) == 5


@pytest.mark.parametrize(
    "query", ["?since=yesterday", "?until=2026-01-01", "?limit=0", "?limit=x", "?cursor=x", "?kind=all", "?who=me"]
)
async def test_bad_filters_are_refused(client: Client, query: str) -> None:
    status, _, problem = await client.ask("GET", f"/audit{query}")
    assert status in (400, 422)
    assert problem["field"] == query[1:].partition("=")[0]


async def test_a_cursor_of_another_list_is_refused(client: Client) -> None:
    cursor = inside(client).cursors.after("demo__echo")
    assert (await client.ask("GET", f"/audit?cursor={cursor}"))[0] == 422


@pytest.mark.parametrize(
    ("method", "params", "tool"),
    [
        ("tools/call", {"name": {"a": "b"}}, None),
        ("tools/call", {"name": "x" * 1000}, "x" * 256),
        ("resources/read", {"uri": "demo://none"}, "demo://none"),
    ],
)
async def test_a_call_of_what_is_not_there_has_its_row(
    client: Client, registered: MemoryServer, method: str, params: Any, tool: str | None
) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    assert "error" in (await client.ask("POST", "/rpc", value=body))[2]
    [row] = await rows(client, "?kind=call")
    assert row["tool"] == tool


async def test_arguments_that_can_not_be_digested_fail_no_call(client: Client, registered: MemoryServer) -> None:
    """orjson writes 254 levels, and a body may be deeper than that."""
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    who = Principal("id", "name")
    inside(client).audit.call(
        time.time(), who, "tools/call", "r", "/mcp", "demo", "echo", "ok", 0.1, 0.1, 1, {"a": deep}
    )
    [row] = await rows(client, "?kind=call")
    assert (row["tool"], row["outcome"]) == ("echo", "ok")


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        ("full", {"q": "x", "api_key": "abc", "deep": [{"text": "Bearer abcdefghijkl"}]}),
        ("masked", {"q": "x", "api_key": "[redacted]", "deep": [{"text": "[redacted]"}]}),
    ],
)
async def test_arguments_are_kept_where_they_are_asked_for(
    open_app: Open, servers: Servers, how: str, kept: Any
) -> None:
    async with open_app(audit_arguments=how) as (_, client):
        arguments = {"q": "x", "api_key": "abc", "deep": [{"text": "Bearer abcdefghijkl"}]}
        await client.ask("POST", "/mcp/tools/call", value={"name": "x", "arguments": arguments})
        [row] = await rows(client, "?kind=call")
        assert row["arguments"] == kept
        await client.ask("POST", "/mcp/tools/call", value={"name": "x", "arguments": {"q": "y" * 50_000}})
        assert "more than are kept" in (await rows(client, "?kind=call"))[0]["arguments"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"password": "x", "tokens": 3, "q": "y"}, {"password": "[redacted]", "tokens": "[redacted]", "q": "y"}),
        ({"secret": None, "authorized": True}, {"secret": None, "authorized": True}),
        ("call me with sk-abcdefghijklmnop now", "call me with [redacted] now"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "[redacted]"),
        ("4111 1111 1111 1111", "[redacted]"),
        (["mgw_abcdefghijkl_x", 5, None], ["[redacted]", 5, None]),
        ("nothing to hide: 12345", "nothing to hide: 12345"),
    ],
)
def test_what_may_be_a_secret_is_masked(value: Any, expected: Any) -> None:
    assert masked(value) == expected


@pytest.mark.parametrize(("which", "kinds"), [("changes", {"change"}), ("off", set())])
async def test_what_is_audited_can_be_set(open_app: Open, servers: Servers, which: str, kinds: set[str]) -> None:
    async with open_app(audit=which) as (_, client):
        await made(client)
        await client.ask("POST", "/mcp/tools/call", value={"name": "x"})
        assert {each["kind"] for each in await rows(client)} == kinds


async def test_calls_go_on_while_the_database_is_away_and_what_does_not_fit_is_counted(
    client: Client, registered: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "_MAX_WAITING", 3)
    gateway = inside(client)
    transaction, execute = gateway.postgres.transaction, gateway.postgres.execute

    def gone(*_: Any) -> Any:
        raise StoreUnavailable

    monkeypatch.setattr(gateway.postgres, "transaction", gone)
    monkeypatch.setattr(gateway.postgres, "execute", gone)
    for _ in range(5):
        assert (await client.ask("POST", "/mcp/tools/call", value={"name": "echo"}))[0] == 200
    await gateway.audit.flush()
    monkeypatch.setattr(gateway.postgres, "transaction", transaction)
    monkeypatch.setattr(gateway.postgres, "execute", execute)
    assert len(await rows(client, "?kind=call")) == 3
    assert "lost 2 rows" in str((await client.ask("GET", "/readyz"))[2]["degraded"])
    assert 'gateway_audit_dropped_total{replica="test"} 2.0' in gateway.metrics.exposition().decode()


async def test_a_name_that_no_text_can_hold_loses_no_row(client: Client, registered: MemoryServer) -> None:
    for name in ("demo__echo", "a\0b", "demo__echo"):
        await client.ask("POST", "/mcp/tools/call", value={"name": name})
    assert [each["outcome"] for each in await rows(client, "?kind=call")] == ["ok", "unknown", "ok"]


@pytest.mark.parametrize("how", ["off", "masked", "full"])
async def test_arguments_that_are_hard_to_write_fail_no_call(open_app: Open, servers: Servers, how: str) -> None:
    servers["demo"] = MemoryServer()
    async with open_app(audit_arguments=how) as (_, client):
        await client.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
        taken = 0
        for depth in (10, 60, 95, 120, 250, 600):
            arguments = '{"a":' * depth + str(2**64 - 1) + "}" * depth
            body = f'{{"name": "demo__echo", "arguments": {arguments}}}'.encode()
            headers = {"content-type": "application/json"}
            status, _, answer = await client.ask("POST", "/mcp/tools/call", body=body, headers=headers)
            assert status in (200, 400), answer
            taken += status == 200
        assert taken >= 3
        assert [each["outcome"] for each in await rows(client, "?kind=call")] == ["ok"] * taken


async def test_a_servers_rows_are_its_calls_and_its_changes(client: Client, registered: MemoryServer) -> None:
    await client.ask("POST", "/mcp/tools/call", value={"name": "demo__echo"})
    await client.ask("POST", "/mcp/tools/call", value={"name": "other"})
    assert [row["kind"] for row in await rows(client, "?server=demo")] == ["call", "change"]
    assert await rows(client, "?server=nobody") == []


async def test_rows_are_written_once_however_many_write(client: Client, registered: MemoryServer) -> None:
    for _ in range(20):
        await client.ask("POST", "/mcp/tools/call", value={"name": "echo"})
    audit = inside(client).audit
    await asyncio.gather(*(audit.flush() for _ in range(5)))
    assert len(await rows(client, "?kind=call")) == 20


async def test_a_busy_worker_keeps_few_rows(open_app: Open, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole batch does not wait for the time at which a few would be written."""
    monkeypatch.setattr(audit_module, "_FLUSH_SECONDS", 35.0)
    monkeypatch.setattr(audit_module, "_AT_ONCE", 3)
    async with open_app() as (_, client):
        waiting = inside(client).audit._waiting
        for _ in range(2):
            await client.ask("POST", "/mcp/tools/call", value={"name": "x"})
        await asyncio.sleep(0.3)
        assert len(waiting) == 2
        await client.ask("POST", "/mcp/tools/call", value={"name": "x"})
        await until(lambda: not waiting)


async def test_a_flush_that_its_loop_does_not_see_the_end_of_writes_rows_once(
    client: Client, registered: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of a worker: the database writes on, and the rest is written after it."""
    audit = inside(client).audit
    execute, under_way = audit._postgres.execute, asyncio.Event()

    async def slow(query: Any, values: Any) -> None:
        under_way.set()
        await execute(query.replace("INSERT", "WITH late AS (SELECT pg_sleep(0.5)) INSERT", 1), values)

    await audit.flush()
    monkeypatch.setattr(audit._postgres, "execute", slow)
    monkeypatch.setattr(audit_module, "_FLUSH_SECONDS", 0.05)
    running = asyncio.create_task(audit.run())
    await client.ask("POST", "/mcp/tools/call", value={"name": "echo"})
    await under_way.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await audit.close()
    monkeypatch.setattr(audit._postgres, "execute", execute)
    assert len(await rows(client, "?kind=call")) == 1


async def test_a_row_that_is_refused_takes_no_other_with_it(client: Client, registered: MemoryServer) -> None:
    for _ in range(5):
        await client.ask("POST", "/mcp/tools/call", value={"name": "echo"})
    audit = inside(client).audit
    audit._waiting[2] = (*audit._waiting[2][:11], 1 << 63, *audit._waiting[2][12:])  # bytes, more than can be
    assert len(await rows(client, "?kind=call")) == 4


async def test_what_waits_at_the_end_is_written(open_app: Open, servers: Servers) -> None:
    async with open_app() as (_, client):
        for _ in range(3):
            await client.ask("POST", "/mcp/tools/call", value={"name": "x"})
    async with open_app() as (_, client):
        assert len(await rows(client, "?kind=call")) == 3


async def test_old_partitions_go_and_new_ones_come(client: Client, registered: MemoryServer) -> None:
    audit, postgres = inside(client).audit, inside(client).postgres

    async def days() -> set[str]:
        async with postgres.transaction() as connection:
            found = await connection.execute(
                "SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
                "WHERE i.inhparent = 'audit'::regclass"
            )
            return {row["name"] async for row in found}

    async with postgres.transaction() as connection:
        await connection.execute(
            "CREATE TABLE audit_20200101 PARTITION OF audit "
            "FOR VALUES FROM ('2020-01-01T00:00Z') TO ('2020-01-02T00:00Z')"
        )
    await audit._tend()
    today = datetime.now(UTC).date()
    assert await days() >= {f"audit_{today:%Y%m%d}", f"audit_{today + timedelta(days=1):%Y%m%d}"}
    assert "audit_20200101" not in await days()
    async with postgres.transaction() as connection:
        for name in await days():
            await connection.execute(f"DROP TABLE {name}".encode())
    await client.ask("POST", "/mcp/tools/call", value={"name": "echo"})
    assert len(await rows(client, "?kind=call")) == 1  # made where it is missing


async def test_no_row_is_missing_after_many_calls(client: Client, registered: MemoryServer) -> None:
    async def some() -> None:
        for _ in range(50):
            assert (await client.ask("POST", "/mcp/tools/call", value={"name": "echo"}))[0] == 200

    await asyncio.gather(*(some() for _ in range(10)))
    await inside(client).audit.flush()
    async with inside(client).postgres.transaction() as connection:
        row = await (await connection.execute("SELECT count(*) AS count FROM audit WHERE kind = 'call'")).fetchone()
    assert row == {"count": 500}
