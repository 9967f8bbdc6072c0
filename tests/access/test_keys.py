"""Keys at two workers: made, used, changed, replaced, expired, revoked; and who may do that."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.edge.app import Application
from gateway.errors import StoreUnavailable
from gateway.methods.services import Gateway
from gateway.model import unmatched as unmatched_module
from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import KEY, Open, Servers
from tests.talk import STREAM, ask, handshake, next_message, request
from tests.talk import inside as inside_app
from tests.waiting import until

pytestmark = pytest.mark.anyio

EVERYTHING = {"allow": [{"servers": ["*"]}]}
LISTS = {"accept": "application/json"}


def inside(client: Client) -> Gateway:
    assert isinstance(client.app, Application)
    return inside_app(client.app)


async def made(client: Client, name: str = "agent", **fields: Any) -> tuple[dict[str, Any], Client]:
    """A new key, and a client that sends it to the same worker."""
    status, _, key = await client.ask("POST", "/keys", value={"name": name, **fields})
    assert status == 201, key
    return key, Client(client.app, key["key"])


def at(worker: Client, key: dict[str, Any]) -> Client:
    """Somebody with a key, at a worker."""
    return Client(worker.app, key["key"])


async def names(client: Client, kind: str = "tools") -> list[str]:
    status, _, found = await client.ask("GET", f"/mcp/{kind}", headers=LISTS)
    assert status == 200, found
    return [item["uri" if kind == "resources" else "name"] for item in found[kind]]


async def test_a_key_sees_and_calls_what_it_is_granted_at_every_worker(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    key, _ = await made(workers[0], grants=EVERYTHING)
    for worker in workers:
        agent = at(worker, key)
        assert await names(agent) == ["demo__echo"]
        status, _, answer = await agent.ask("POST", "/mcp/tools/call", value={"name": "echo", "arguments": {}})
        assert (status, answer["server"]) == (200, "demo")
    nobody, agent = await made(workers[0], "nobody")
    assert nobody["grants"] is None
    assert await names(agent) == []
    assert (await agent.ask("POST", "/mcp/tools/call", value={"name": "echo"}))[0] == 404


async def test_its_text_is_shown_once_and_stored_nowhere(client: Client) -> None:
    key, agent = await made(client, grants=EVERYTHING, owner="ann", tags=["ci"])
    for address in ("/keys", f"/keys/{key['id']}"):
        assert key["key"] not in str(await client.ask("GET", address))
    _, _, me = await agent.ask("GET", "/whoami")
    assert {name: me[name] for name in ("id", "name", "role", "owner", "tags", "grants")} == {
        "id": key["id"], "name": "agent", "role": "user", "owner": "ann", "tags": ["ci"], "grants": EVERYTHING,
    }  # fmt: skip
    postgres = inside(client).postgres
    async with postgres.transaction() as connection:
        rows = await (await connection.execute("SELECT k::text AS row FROM keys k")).fetchall()
    assert key["key"] not in str(rows)
    assert key["key"].split("_")[2][:32] not in str(rows)


async def test_who_holds_no_key_of_ours_is_told_what_is_wrong_with_it(client: Client) -> None:
    key, _ = await made(client)
    text = key["key"]
    other = "0" if text[25] != "0" else "1"
    for wrong, said in {
        text[:-3]: "cut off",
        f"{text[:25]}{other}{text[26:]}": "checksum",
        "mgw_": "cut off",
        "sk-of-somebody-else": "not one of this gateway's",
        f"{text} {text}": "not one of this gateway's",
    }.items():
        status, _, problem = await Client(client.app, wrong).ask("GET", "/whoami")
        assert (status, problem["status"]) == (401, 401)
        assert said in problem["detail"]
    two = [("authorization", f"Bearer {text}"), ("authorization", f"Bearer {KEY}")]
    assert (await Client(client.app).ask("GET", "/whoami", headers=two))[0] == 401
    assert (await client.ask("GET", f"/whoami?key={text}"))[0] == 400


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("mcp.keys.create", {"name": "x"}),
        ("mcp.keys.list", {}),
        ("mcp.keys.get", {"id": "0" * 12}),
        ("mcp.keys.update", {"id": "0" * 12}),
        ("mcp.keys.revoke", {"id": "0" * 12}),
        ("mcp.keys.rotate", {"id": "0" * 12}),
        ("mcp.keys.access", {"id": "0" * 12}),
        ("mcp.servers.register", {"name": "x", "url": "http://x.test/"}),
        ("mcp.servers.update", {"name": "demo"}),
        ("mcp.servers.remove", {"name": "demo"}),
        ("mcp.servers.refresh", {"name": "demo"}),
    ],
)
async def test_what_a_role_may_not_do_names_the_role_that_may(
    client: Client, registered: MemoryServer, method: str, params: Any
) -> None:
    needed = "admin" if ".keys." in method else "operator"
    for role in ("user", "operator"):
        _, somebody = await made(client, role, role=role, **({"grants": EVERYTHING} if role == "user" else {}))
        _, _, answer = await somebody.ask("POST", "/rpc", value=request(method, **params))
        if role == "operator" and needed == "operator":
            assert "result" in answer, answer
        else:
            assert (answer["error"]["code"], answer["error"]["data"]["role"]) == (-32041, needed)
    assert (await client.ask("GET", "/keys"))[0] == 200


async def test_the_figures_and_registrations_are_no_users_business(client: Client, registered: MemoryServer) -> None:
    _, agent = await made(client, grants=EVERYTHING)
    for method, address in (("GET", "/metrics"), ("POST", "/mcp/servers"), ("DELETE", "/mcp/servers/demo")):
        status, _, problem = await agent.ask(method, address, value={"name": "x", "url": "http://x.test/"})
        assert (status, problem["role"]) == (403, "operator"), address
    _, _, server = await agent.ask("GET", "/mcp/servers/demo")
    assert (server["name"], server["state"], server["counts"]["tools"]) == ("demo", "ready", 1)
    assert not server.keys() & {"url", "headers", "command", "args", "env", "metadata"}


async def test_names_are_unique_among_live_keys(client: Client) -> None:
    key, _ = await made(client)
    status, _, problem = await client.ask("POST", "/keys", value={"name": "agent"})
    assert (status, problem["key"]) == (409, key["id"])
    other, _ = await made(client, "other")
    assert (await client.ask("PATCH", f"/keys/{other['id']}", value={"name": "agent"}))[0] == 409
    assert (await client.ask("DELETE", f"/keys/{key['id']}"))[0] == 200
    again, _ = await made(client)
    assert again["id"] != key["id"]


async def test_a_revoked_key_is_refused_everywhere_and_stays_revoked(workers: tuple[Client, Client]) -> None:
    key, agent = await made(workers[0], grants=EVERYTHING)
    other = at(workers[1], key)
    assert (await other.ask("GET", "/whoami"))[0] == 200
    status, _, gone = await workers[0].ask("DELETE", f"/keys/{key['id']}")
    assert (status, gone["revoked_at"] is not None) == (200, True)
    assert (await agent.ask("GET", "/whoami"))[0] == 401
    async with asyncio.timeout(5):
        while (answer := await other.ask("GET", "/whoami"))[0] != 401:  # noqa: ASYNC110  # the other worker has no event
            await asyncio.sleep(0.01)
    assert "revoked" in answer[2]["detail"]
    assert (await workers[1].ask("DELETE", f"/keys/{key['id']}"))[2]["revoked_at"] == gone["revoked_at"]
    for path, value in ((f"/keys/{key['id']}", {"owner": "x"}), (f"/keys/{key['id']}/rotate", {})):
        method = "PATCH" if "rotate" not in path else "POST"
        assert (await workers[0].ask(method, path, value=value))[0] == 409


@asynccontextmanager
async def everything_open(agent: Client, demo: MemoryServer) -> AsyncIterator[dict[str, Any]]:
    """One of each thing that stays open: lists, streams of both transports, a call in a session, one outside."""
    go = asyncio.Event()

    async def slow(_: Any, emit: Any) -> Any:
        await go.wait()
        return {"content": []}

    demo.tools["slow"] = slow
    await Client(agent.app, KEY).ask("POST", "/mcp/servers/demo/refresh")
    session = await handshake(agent)
    body = request("tools/call", 5, name="demo__slow")
    async with (
        agent.open("GET", "/mcp/tools", headers=STREAM) as listed,
        agent.open("GET", "/mcp", headers={**session, **STREAM}) as own,
        agent.open("GET", "/sse", headers=STREAM) as old,
    ):
        inside_call = asyncio.create_task(agent.ask("POST", "/mcp", value=body, headers=session))
        alone = asyncio.create_task(agent.ask("POST", "/mcp/tools/call", value={"name": "demo__slow"}))
        await listed.event()
        await old.event()
        await until(lambda: [each.method for each in demo.requests].count("tools/call") == 2)
        yield {"list": listed, "own": own, "old": old, "call": inside_call, "alone": alone, "session": session}
        go.set()


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_what_a_key_has_open_ends_with_it_and_says_why(
    workers: tuple[Client, Client], demo: MemoryServer, how: str
) -> None:
    life: dict[str, Any] = {"expires_in": 2} if how == "expired" else {}
    key, _ = await made(workers[0], grants=EVERYTHING, **life)
    async with everything_open(at(workers[1], key), demo) as opened:
        if how == "revoked":
            await workers[0].ask("DELETE", f"/keys/{key['id']}")
        *_, last = await opened["list"].events()
        assert (last.name, json.loads(last.data)["status"]) == ("error", 401)
        assert how in json.loads(last.data)["detail"]
        for stream in ("own", "old"):
            *_, last = await opened[stream].events()
            assert how in json.loads(last.data)["params"]["data"]
        _, _, answer = await opened["call"]
        assert answer["error"]["code"] == -32040
        status, _, problem = await opened["alone"]
        assert (status, how in problem["detail"]) == (401, True)
    sessions = inside(workers[1]).sessions
    await until(lambda: not sessions.here())


async def test_the_secret_is_replaced_and_sessions_go_on(workers: tuple[Client, Client]) -> None:
    key, agent = await made(workers[0], grants=EVERYTHING)
    session = await handshake(agent)
    status, _, new = await workers[0].ask("POST", f"/keys/{key['id']}/rotate", value={"overlap_seconds": 600})
    assert (status, new["id"], new["key"] != key["key"]) == (200, key["id"], True)
    for each in (key, new):
        for worker in workers:
            assert (await at(worker, each).ask("POST", "/mcp", value=request("ping"), headers=session))[0] == 200
    _, _, newest = await workers[0].ask("POST", f"/keys/{key['id']}/rotate", value={"overlap_seconds": 0})
    for each in (key, new):
        assert (await at(workers[0], each).ask("GET", "/whoami"))[0] == 401
    assert (await at(workers[1], newest).ask("POST", "/mcp", value=request("ping"), headers=session))[0] == 200


async def test_an_old_secret_ends_with_its_overlap(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    key, agent = await made(client)
    _, _, new = await client.ask("POST", f"/keys/{key['id']}/rotate", value={"overlap_seconds": 1})
    assert (await agent.ask("GET", "/whoami"))[0] == 200
    await asyncio.sleep(1.1)
    assert (await agent.ask("GET", "/whoami"))[0] == 401
    assert (await at(client, new).ask("GET", "/whoami"))[0] == 200


@pytest.mark.parametrize("how", ["replaced twice", "the overlap ends"])
async def test_what_an_old_secret_opened_ends_with_it(client: Client, registered: MemoryServer, how: str) -> None:
    key, agent = await made(client, grants=EVERYTHING)
    async with agent.open("GET", "/mcp/tools", headers=STREAM) as listed:
        await listed.event()
        for overlap in (600, 600) if how == "replaced twice" else (1,):
            await client.ask("POST", f"/keys/{key['id']}/rotate", value={"overlap_seconds": overlap})
        *_, last = await listed.events()
        assert "secret of this key was replaced" in json.loads(last.data)["detail"]


async def test_other_grants_reach_lists_and_streams_that_are_open(
    workers: tuple[Client, Client], demo: MemoryServer
) -> None:
    key, _ = await made(workers[0], grants={"allow": [{"tools": ["ec*"]}]})
    agent = at(workers[1], key)
    session = await handshake(agent)
    async with (
        agent.open("GET", "/mcp/tools", headers=STREAM) as listed,
        agent.open("GET", "/mcp", headers={**session, **STREAM}) as own,
    ):
        first = await listed.event()
        assert first is not None
        assert [each["name"] for each in json.loads(first.data)["tools"]] == ["demo__echo"]
        await own.prime()
        await workers[0].ask("PATCH", f"/keys/{key['id']}", value={"grants": {"allow": [{"tools": ["none"]}]}})
        second = await listed.event()
        assert second is not None
        assert json.loads(second.data)["tools"] == []
        assert (await next_message(own))["method"] == "notifications/tools/list_changed"
    assert (await ask(agent, "/mcp", session, "tools/list"))["tools"] == []
    assert (await ask(agent, "/mcp", session, "tools/call", name="demo__echo"))["code"] == -32602


async def test_a_session_belongs_to_its_key(client: Client, registered: MemoryServer) -> None:
    _, one = await made(client, "one", grants=EVERYTHING)
    _, two = await made(client, "two", grants=EVERYTHING)
    session = await handshake(one)
    for other in (two, client):
        assert (await other.ask("POST", "/mcp", value=request("ping"), headers=session))[0] == 404


async def test_a_leavers_keys_end_together(client: Client) -> None:
    for number in range(3):
        await made(client, f"k{number}", owner="ann" if number else "bob")
    status, _, gone = await client.ask("DELETE", "/keys?owner=ann")
    assert (status, [each["name"] for each in gone["keys"]]) == (200, ["k1", "k2"])
    _, _, left = await client.ask("GET", "/keys?owner=bob")
    assert [each["revoked_at"] for each in left["keys"]] == [None]
    assert (await client.ask("DELETE", "/keys"))[0] == 400
    assert (await client.ask("DELETE", "/keys?owner=%00"))[0] == 422


async def test_lists_of_keys_have_pages(client: Client) -> None:
    for number in range(5):
        await made(client, f"k{number}")
    seen: list[str] = []
    cursor: Any = ""
    while cursor is not None:
        _, _, page = await client.ask("GET", f"/keys?limit=2&cursor={cursor}")
        seen += [each["name"] for each in page["keys"]]
        cursor = page["next_cursor"]
    assert seen == [f"k{number}" for number in range(5)]
    assert [each["name"] for each in (await client.ask("GET", "/keys?name=k3"))[2]["keys"]] == ["k3"]
    assert (await client.ask("GET", "/keys?cursor=x"))[0] == 422
    assert (await client.ask("GET", "/keys?limit=0"))[0] == 422


async def test_access_shows_what_a_key_sees_and_what_matches_nothing(client: Client, registered: MemoryServer) -> None:
    grants = {"allow": [{"servers": ["demo", "docs"], "tools": ["ec*", "serch"]}, {"toolsets": ["research*"]}]}
    key, _ = await made(client, grants=grants)
    status, _, seen = await client.ask("GET", f"/keys/{key['id']}/access")
    assert (status, seen["servers"], seen["tools"]) == (200, ["demo"], ["demo__echo"])
    assert seen["unmatched"] == ["servers: docs", "tools: serch", "toolsets: research*"]
    _, _, preview = await client.ask("POST", f"/keys/{key['id']}/access", value={"grants": {"allow": []}})
    assert preview["tools"] == []
    assert (await client.ask("GET", f"/keys/{key['id']}"))[2]["grants"] == grants


async def test_keys_that_see_a_tool_are_those_that_may_call_it(client: Client, registered: MemoryServer) -> None:
    """As `access` says of each; keys that have ended see nothing."""
    grants: dict[str, Any] = {
        "all": {"allow": [{"servers": ["*"]}]},
        "one": {"allow": [{"tools": ["ec*"]}]},
        "other": {"allow": [{"tools": ["add"]}]},
        "denied": {"allow": [{"servers": ["demo"]}], "deny": [{"tools": ["echo"]}]},
        "none": None,
        "reads": {"allow": [{"annotations": {"readOnlyHint": True}}]},
        "ended": {"allow": [{"servers": ["*"]}]},
    }
    ids = {name: (await made(client, name=name, grants=given))[0]["id"] for name, given in grants.items()}
    await made(client, name="boss", role="operator")
    await client.ask("DELETE", f"/keys/{ids.pop('ended')}")
    status, _, found = await client.ask("GET", "/keys?sees=demo__echo")
    expected = {"boss"}
    for name, id in ids.items():
        if "demo__echo" in (await client.ask("GET", f"/keys/{id}/access"))[2]["tools"]:
            expected.add(name)
    assert (status, {each["name"] for each in found["keys"]}) == (200, expected)
    assert {"boss", "all", "one"} <= expected
    assert (await client.ask("GET", "/keys?sees=demo__nothing"))[0] == 404
    paged = list[str]()
    cursor: str | None = ""
    while cursor is not None:
        _, _, page = await client.ask("GET", f"/keys?sees=demo__echo&limit=1&cursor={cursor}")
        assert len(page["keys"]) == 1 or page["next_cursor"] is None
        paged += [each["name"] for each in page["keys"]]
        cursor = page["next_cursor"]
    assert set(paged) == expected
    assert len(paged) == len(expected)
    assert len((await client.ask("GET", "/keys?sees=demo__echo&role=operator"))[2]["keys"]) == 1


@pytest.mark.parametrize("kind", ["allow", "deny"])
async def test_a_grant_names_no_toolset_that_does_not_exist(client: Client, kind: str) -> None:
    wrong = {kind: [{"servers": ["*"]}, {"toolsets": ["research"]}]}
    key, _ = await made(client)
    for method, path, value in (
        ("POST", "/keys", {"name": "other", "grants": wrong}),
        ("PATCH", f"/keys/{key['id']}", {"grants": wrong}),
        ("POST", f"/keys/{key['id']}/access", {"grants": wrong}),
    ):
        status, _, answer = await client.ask(method, path, value=value)
        assert (status, answer["field"]) == (422, f"grants.{kind}[1].toolsets"), answer
        assert "there is no toolset 'research'" in answer["detail"]
    assert [each["name"] for each in (await client.ask("GET", "/keys"))[2]["keys"]] == [key["name"]]


async def test_the_search_for_what_matches_nothing_comes_to_an_end(
    client: Client, registered: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of texts of grants over thousands of tools would hold the loop."""
    monkeypatch.setattr(unmatched_module, "_MAX_COMPARED", 5)
    key, _ = await made(client, grants={"allow": [{"tools": [f"no{number}" for number in range(200)]}]})
    status, _, seen = await client.ask("GET", f"/keys/{key['id']}/access")
    assert (status, len(seen["unmatched"])) == (200, 5)


async def test_the_use_of_a_key_is_recorded_now_and_then(client: Client) -> None:
    key, agent = await made(client)
    assert key["last_used_at"] is None
    await agent.ask("GET", "/whoami")
    await inside(client).authenticator._record_use()
    _, _, seen = await client.ask("GET", f"/keys/{key['id']}")
    assert seen["last_used_at"] is not None


async def test_a_key_that_ends_soon_says_so(client: Client) -> None:
    _, agent = await made(client, expires_in=13 * 86_400)
    assert "expires in 12 days" in (await agent.ask("GET", "/whoami"))[2]["warning"]
    _, agent = await made(client, "other", expires_in=20 * 86_400)
    assert "warning" not in (await agent.ask("GET", "/whoami"))[2]


async def test_known_keys_work_while_the_database_is_away_and_changes_are_503(
    client: Client, registered: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, agent = await made(client, grants=EVERYTHING)
    gateway = inside(client)

    def gone(*_: Any) -> Any:
        raise StoreUnavailable

    monkeypatch.setattr(gateway.postgres, "transaction", gone)
    assert (await agent.ask("POST", "/mcp/tools/call", value={"name": "demo__echo"}))[0] == 200
    status, _, me = await agent.ask("GET", "/whoami")
    assert (status, me["id"], me["grants"]) == (200, key["id"], EVERYTHING)
    monkeypatch.setattr(gateway.sync, "read_at", gateway.sync.read_at - 301)  # type: ignore[operator]
    assert "keys that were revoked" in str((await client.ask("GET", "/readyz"))[2]["degraded"])
    for method, path in (("POST", "/keys"), ("PATCH", f"/keys/{key['id']}"), ("DELETE", f"/keys/{key['id']}")):
        assert (await client.ask(method, path, value={"name": "other"}))[0] == 503


async def test_a_worker_that_starts_knows_all_keys(client: Client, open_app: Open, servers: Servers) -> None:
    key, _ = await made(client)
    gone, _ = await made(client, "gone")
    await client.ask("DELETE", f"/keys/{gone['id']}")
    async with open_app() as (_, other):
        assert (await at(other, key).ask("GET", "/whoami"))[0] == 200
        assert "revoked" in (await at(other, gone).ask("GET", "/whoami"))[2]["detail"]


async def test_grants_that_can_not_be_read_give_nothing(client: Client, registered: MemoryServer) -> None:
    key, agent = await made(client, grants=EVERYTHING)
    gateway = inside(client)
    async with gateway.postgres.transaction() as connection:
        newer = json.dumps({"allow": [{"servers": ["*"]}], "only_on": ["monday"]}).encode()
        await connection.execute("UPDATE key_changes SET revision = revision + 1")
        await connection.execute(
            "UPDATE keys SET grants = %s, revision = (SELECT revision FROM key_changes) WHERE id = %s",
            (newer, key["id"]),
        )
    await gateway.sync.catch_up()
    assert await names(agent) == []
