import asyncio
import json
from functools import partial
from typing import Any

import pytest

from gateway.stores.redis import RedisUnavailable
from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import ask, handshake, inside, request
from tests.waiting import until

pytestmark = pytest.mark.anyio
OWN = "/mcp/servers/docs/mcp"
ROWS = [{"id": number, "name": f"row {number}", "tags": ["a", "b"]} for number in range(200_000)]


@pytest.fixture
async def docs(client: Client, servers: Servers) -> MemoryServer:
    """A server with results of each kind."""
    await docs_at(client, servers)
    return servers["docs"]


async def docs_at(client: Client, servers: Servers) -> None:
    results: dict[str, Any] = {
        "rows": {
            "content": [{"type": "text", "text": "see there"}],
            "structuredContent": {"rows": ROWS[:100], "total": 100},
        },
        "many": {"content": [{"type": "text", "text": json.dumps({"rows": ROWS})}]},
        "prose": {"content": [{"type": "text", "text": "ä" * 5_000}]},
        "image": {"content": [{"type": "image", "data": "A" * 5_000, "mimeType": "image/png"}]},
        "fails": {"content": [{"type": "text", "text": "x" * 5_000}], "isError": True},
        "small": {"content": [{"type": "text", "text": "fine"}]},
    }
    server = servers["docs"] = MemoryServer()

    def tool(result: Any) -> Any:
        async def answer(request: Any, emit: Any) -> Any:
            return result

        return answer

    server.tools = {name: tool(result) for name, result in results.items()}
    server.told = {
        name: {"outputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}} for name in results
    }
    spec = {"name": "docs", "url": "http://docs.test/mcp"}
    assert (await client.ask("POST", "/mcp/servers", value=spec))[2]["state"] == "ready"


async def policy(client: Client, status: int = 200, **results: Any) -> Any:
    overrides = {name: {"results": results} for name in ("rows", "many", "prose", "image", "fails", "small")}
    answered, _, document = await client.ask("PATCH", "/mcp/servers/docs", value={"overrides": overrides})
    assert answered == status, document
    return document


async def use(client: Client, tool: str, **arguments: Any) -> Any:
    name = tool if tool.startswith("read_result") else f"docs__{tool}"
    _, _, answer = await client.ask("POST", "/mcp/tools/call", value={"name": name, "arguments": arguments})
    return answer.get("result", answer)


async def read_on(client: Client, ref: str, **arguments: Any) -> Any:
    """Read on, again while Redis is said not to answer: on a busy machine ten million bytes hold up its heartbeat."""
    for _ in range(20):
        found = await use(client, "read_result", ref=ref, **arguments)
        if "Redis does not answer" not in text_of(found):
            break
        await asyncio.sleep(0.5)
    return found


async def spilled(client: Client, tool: str) -> Any:
    """A result that was kept, called for again while it was cut since Redis did not answer, as above."""
    for _ in range(20):
        found = await use(client, tool)
        if "io.mcp-gateway/result" in found.get("_meta", {}):
            break
        await asyncio.sleep(0.5)
    return found


def text_of(result: Any) -> str:
    [block] = result["content"]
    return str(block["text"])


def kept(result: Any) -> Any:
    return result["_meta"]["io.mcp-gateway/result"]


async def test_a_result_that_cant_be_written_again_fails_its_own_call_alone(
    client: Client, docs: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    deep: Any = []
    for _ in range(300):
        deep = [deep]

    async def answer(request: Any, emit: Any) -> Any:
        return {
            "content": [{"type": "resource_link", "uri": "file:///a", "name": "a"}],
            "structuredContent": {"a": deep},
        }

    docs.tools["prose"] = answer
    calls = [request("tools/call", id, name=f"docs__{tool}", arguments={}) for id, tool in ((1, "prose"), (2, "small"))]
    with caplog.at_level("INFO", "gateway.calls"):
        status, _, answers = await client.ask("POST", "/rpc", value=calls)
        _, _, document = await client.ask("POST", "/mcp/tools/call", value={"name": "docs__prose"})
    found = {answer["id"]: answer for answer in answers}
    assert (status, found[2]["result"]["content"][0]["text"]) == (200, "fine")
    assert "nested too deeply" in found[1]["error"]["message"]
    assert "nested too deeply" in document["detail"]
    outcomes = [record.fields["outcome"] for record in caplog.records if hasattr(record, "fields")]
    assert sorted(outcomes) == ["-32603", "-32603", "ok"]


# --- selecting --------------------------------------------------------------------------------------------------------


async def test_a_part_of_a_result_is_selected(client: Client, docs: MemoryServer) -> None:
    await policy(client, select="{names: rows[:2].name, total: total}")
    result = await use(client, "rows")
    assert result["structuredContent"] == {"names": ["row 0", "row 1"], "total": 100}
    assert json.loads(text_of(result)) == result["structuredContent"]
    await policy(client, select="rows[1].name")
    assert await use(client, "rows") == {"content": [{"type": "text", "text": "row 1"}]}
    assert text_of(await use(client, "many")) == "row 1"  # of the JSON in a text
    assert (await use(client, "fails"))["isError"] is True
    assert len(text_of(await use(client, "fails"))) == 5_000
    await policy(client, select="rows[*].id | sum(@)")
    assert "can't be used on this result" in text_of(await use(client, "prose"))


async def test_an_expression_that_makes_much_of_little_ends(client: Client, docs: MemoryServer) -> None:
    bomb = " | ".join(["[@,@,@,@,@,@,@,@][]"] * 30)
    await policy(client, select=bomb)
    result = await use(client, "rows")
    assert result["isError"] is True
    assert "too many steps" in text_of(result)


@pytest.mark.parametrize(
    ("results", "field"),
    [
        ([], "results"),
        ({"colour": 1}, "results.colour"),
        ({"select": "rows[?"}, "results.select"),
        ({"select": "(" * 900}, "results.select"),
        ({"select": "x" * 1_001}, "results.select"),
        ({"select": 5}, "results.select"),
        ({"max_bytes": 100}, "results.max_bytes"),
        ({"max_bytes": True}, "results.max_bytes"),
        ({"max_bytes": 1_000, "overflow": "drop"}, "results.overflow"),
        ({"overflow": "spill"}, "results.max_bytes"),
    ],
)
async def test_policies_that_are_wrong(client: Client, docs: MemoryServer, results: Any, field: str) -> None:
    value = {"overrides": {"rows": {"results": results}}}
    status, _, problem = await client.ask("PATCH", "/mcp/servers/docs", value=value)
    assert (status, problem["field"]) == (422, f"overrides.rows.{field}")
    toolset = {"include": [{"servers": ["docs"]}], "results": results}
    status, _, problem = await client.ask("PUT", "/mcp/toolsets/t", value=toolset)
    assert (status, problem["field"]) == (422, field)


# --- what is too large ------------------------------------------------------------------------------------------------


async def test_what_is_too_large_is_an_error(client: Client, docs: MemoryServer) -> None:
    await policy(client, max_bytes=1_000)
    result = await use(client, "prose")
    assert result["isError"] is True
    assert "ask for less" in text_of(result)
    assert text_of(await use(client, "small")) == "fine"


async def test_what_is_too_large_is_cut(client: Client, docs: MemoryServer) -> None:
    await policy(client, max_bytes=1_000, overflow="truncate")
    result = await use(client, "prose")
    assert len(json.dumps(result, ensure_ascii=False).encode()) <= 1_000
    assert text_of(result).startswith("ää")
    assert "cut: the result has" in text_of(result)
    result = await use(client, "rows")
    assert "structuredContent" not in result
    assert text_of(result).startswith('{"rows":[{"id":0')


async def test_what_is_too_large_is_kept_and_read_on_at_another_worker(open_app: Open, servers: Servers) -> None:
    async with open_app() as (_, one), open_app() as (other, two):
        await docs_at(one, servers)
        await policy(one, max_bytes=4_096, overflow="spill")
        await until(lambda: bool(inside(other).sync.catalogue.servers["docs"].spec.overrides))
        result = await spilled(one, "many")
        size = len(json.dumps(result))
        assert size < 4_000  # of some ten million bytes, that is less than a thousand tokens
        assert kept(result)["bytes"] > 10_000_000
        assert 'Shape: {"rows": [200,000 x {"id": number, "name": text, "tags": [2 x text]}]}' in text_of(result)
        assert 'Beginning:\n{"rows":[{"id":0,"name":"row 0"' in text_of(result)
        ref = kept(result)["ref"]
        assert f'read_result(ref="{ref}")' in text_of(result)
        page = await read_on(two, ref, select="rows[?id >= `150000`].id", offset=1, limit=3)
        assert text_of(page) == "[150001,150002,150003]\n(the next begin at offset 4 of 50000 items)"
        assert kept(page) == {"total": 50_000, "next_offset": 4}
        whole = await read_on(two, ref, offset=10, limit=20)
        assert text_of(whole).startswith('"id":0,"name":"row 0')
        assert kept(whole)["next_offset"] == 30
        one_row = await read_on(two, ref, select="rows[7]")
        assert one_row["structuredContent"] == ROWS[7]
        few = await read_on(two, ref, select="rows")  # what nobody asked for does not fill a context
        assert 3_000 < len(text_of(few)) < 4_100
        assert kept(few)["next_offset"] < 200
        long = await read_on(two, ref, select="rows", limit=50_000)
        assert len(text_of(long)) < 70_000
        end = await read_on(two, ref, select="rows[*].id", offset=199_999)
        assert text_of(end) == "[199999]"
        assert "next_offset" not in kept(end)


@pytest.mark.parametrize("tool", ["prose", "image", "rows"])
async def test_every_kind_of_result_is_kept_whole(client: Client, docs: MemoryServer, tool: str) -> None:
    await policy(client, max_bytes=1_000, overflow="spill")
    result = await use(client, tool)
    page = await use(client, "read_result", ref=kept(result)["ref"], limit=50_000)
    if tool == "prose":
        assert text_of(page) == "ä" * 5_000
    elif tool == "image":
        assert page["structuredContent"]["content"][0]["data"] == "A" * 5_000
    else:
        assert page["structuredContent"]["rows"] == ROWS[:100]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "'ref' must be the text"),
        ({"ref": 5}, "'ref' must be the text"),
        ({"ref": "nope"}, "no result with this 'ref'"),
        ({"ref": "x" * 10_000}, "no result with this 'ref'"),
        ({"ref": "a\x00b"}, "no result with this 'ref'"),
        ({"ref": "r", "colour": 1}, "There is no argument 'colour'"),
        ({"ref": "r", "offset": -1}, "'offset' must be a number"),
        ({"ref": "r", "limit": 0}, "'limit' must be a number"),
        ({"ref": "r", "limit": 50_001}, "'limit' must be a number"),
        ({"ref": "r", "select": 5}, "'select' must be"),
    ],
)
async def test_reading_that_is_wrong(client: Client, docs: MemoryServer, arguments: Any, said: str) -> None:
    await policy(client, max_bytes=1_000, overflow="spill")
    result = await use(client, "read_result", **arguments)
    assert result["isError"] is True
    assert said in text_of(result)


async def test_a_result_is_its_callers(client: Client, docs: MemoryServer) -> None:
    """Foreign, forged and expired handles are all alike."""
    await policy(client, max_bytes=1_000, overflow="spill")
    ref = kept(await use(client, "prose"))["ref"]
    grants = {"allow": [{"servers": ["docs"]}]}
    _, _, made = await client.ask("POST", "/keys", value={"name": "a", "grants": grants})
    agent = Client(client.app, made["key"])
    foreign = await use(agent, "read_result", ref=ref)
    forged = await use(agent, "read_result", ref="A" * len(ref))
    assert foreign == forged
    spills = inside(client.app).spills  # type: ignore[arg-type]
    await spills._redis.do(lambda store: store.delete(spills._redis.key("spill", ref)))
    assert await use(client, "read_result", ref=ref) == foreign
    wrong = await use(client, "read_result", ref=kept(await use(client, "prose"))["ref"], select="[?")
    assert "is no JMESPath expression" in text_of(wrong)


async def test_what_is_kept_is_bounded_in_sum(open_app: Open, servers: Servers) -> None:
    async with open_app(spill_bytes=1 << 20) as (app, client):
        await docs_at(client, servers)
        await policy(client, max_bytes=1_000, overflow="spill")
        spills = inside(app).spills
        refs = [await spills.keep("master", b"x" * 300_000) for _ in range(5)]
        left = [await spills.read("master", ref or "") for ref in refs]
        assert [each is not None for each in left] == [False, False, True, True, True]
        assert await spills.keep("master", b"x" * (2 << 20)) is None
        assert "cut: the result has" in text_of(await use(client, "many"))  # too large to be kept at all


async def _count(sums: str, whose: str, store: Any) -> None:
    await store.hincrby(sums, whose, 4096)


async def test_many_small_results_are_bounded_too(open_app: Open) -> None:
    async with open_app(spill_bytes=1 << 20) as (app, _):
        spills = inside(app).spills
        redis = spills._redis
        refs = [await spills.keep("master", b"x") for _ in range(300)]
        left = [await spills.read("master", ref or "") is not None for ref in refs]
        assert left == [False] * 44 + [True] * 256  # each counts 4 KiB at least
        index, sums = redis.key("spill-index"), redis.key("spill-sums")

        async def counted() -> dict[bytes, bytes]:
            return dict(await redis.do(lambda store: store.hgetall(sums)))

        full = {b"": b"%d" % (1 << 20), b"master": b"%d" % (1 << 20)}
        assert await redis.do(lambda store: store.zcard(index)) == 256
        assert await redis.do(lambda store: store.zcard(redis.key("spill-index", "master"))) == 256
        assert await counted() == full
        await redis.do(lambda store: store.delete(sums))  # it is counted anew
        await spills.keep("master", b"x")
        assert await counted() == full
        await redis.do(lambda store: store.delete(index, redis.key("spill-index", "master")))  # but not of the sums
        for _ in range(2):
            await spills.keep("master", b"x")
        assert await counted() == {b"": b"%d" % (2 * 4096), b"master": b"%d" % (2 * 4096)}
        for _ in range(260):
            await spills.keep("master", b"x")
        assert await counted() == full
        await redis.do(lambda store: store.zadd(index, {"4096:k:1:gone": 1.0}))
        for whose in ("", "k:1"):
            await redis.do(partial(_count, sums, whose))
        await spills.keep("master", b"x")  # what has ended counts no more
        assert await counted() == full
        assert await redis.do(lambda store: store.zscore(index, "4096:k:1:gone")) is None


async def test_who_keeps_much_pushes_out_its_own(open_app: Open) -> None:
    async with open_app(spill_bytes=1 << 20) as (app, _):
        spills = inside(app).spills

        async def keep(whose: str, count: int) -> list[str]:
            return [await spills.keep(whose, b"x" * 60_000) or "" for _ in range(count)]

        async def left(whose: str, refs: list[str]) -> int:
            return sum([await spills.read(whose, ref) is not None for ref in refs])

        few, much = await keep("few", 3), await keep("much", 30)
        assert await left("few", few) == 3
        assert 10 < await left("much", much) < 15  # the rest of what there is room for
        late = await keep("late", 4)
        assert await left("late", late) == 4
        assert await left("few", few) == 3  # who keeps much made room
        assert await left("much", much) < 11


async def test_without_redis_it_is_cut(client: Client, docs: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    await policy(client, max_bytes=1_000, overflow="spill")
    spills = inside(client.app).spills  # type: ignore[arg-type]

    async def unavailable(*_: Any) -> Any:
        raise RedisUnavailable

    monkeypatch.setattr(spills, "keep", unavailable)
    monkeypatch.setattr(spills, "read", unavailable)
    assert "cut: the result has" in text_of(await use(client, "prose"))
    assert "Redis does not answer" in text_of(await use(client, "read_result", ref="r"))


# --- lists and addresses ----------------------------------------------------------------------------------------------


async def test_the_reader_is_listed_where_something_spills(client: Client, docs: MemoryServer) -> None:
    async def names(address: str) -> list[str]:
        session = await handshake(client, address)
        return [tool["name"] for tool in (await ask(client, address, session, "tools/list"))["tools"]]

    assert "read_result" not in await names("/mcp")
    assert (await use(client, "read_result", ref="r"))["status"] == 404
    await policy(client, max_bytes=1_000)
    assert "read_result" not in await names("/mcp")
    toolset = {"include": [{"servers": ["docs"]}], "results": {"max_bytes": 1_000, "overflow": "spill"}}
    await client.ask("PUT", "/mcp/toolsets/t", value=toolset)
    assert "read_result" not in await names("/mcp")
    assert (await names("/mcp/toolsets/t/mcp"))[-1] == "read_result"
    await policy(client, max_bytes=1_000, overflow="spill")
    for address in ("/mcp", OWN, "/mcp?tools=search", f"{OWN}?tools=search"):
        assert (await names(address))[-1] == "read_result"
    docs.tools["read_result"] = docs.tools["small"]
    await client.ask("PATCH", "/mcp/servers/docs", value={"prefix": ""})
    assert {"read_result", "read_result_gateway"} <= set(await names("/mcp"))


@pytest.mark.parametrize("address", ["/mcp", OWN, "/mcp/toolsets/t/mcp", "/mcp?tools=search"])
async def test_it_is_so_at_every_address(client: Client, docs: MemoryServer, address: str) -> None:
    await client.ask("PUT", "/mcp/toolsets/t", value={"include": [{"servers": ["docs"]}]})
    await policy(client, max_bytes=1_000, overflow="spill")
    session = await handshake(client, address)
    name = "prose" if address == OWN else "docs__prose"
    result = await ask(client, address, session, "tools/call", name=name)
    page = await ask(
        client, address, session, "tools/call", name="read_result", arguments={"ref": kept(result)["ref"], "limit": 3}
    )
    assert text_of(page).startswith("äää\n")
    if address.endswith("search"):
        again = {"name": "read_result", "arguments": {"ref": kept(result)["ref"], "limit": 3}}
        assert await ask(client, address, session, "tools/call", name="call_tool", arguments=again) == page


async def test_a_schema_that_would_not_be_true_is_withdrawn(client: Client, docs: MemoryServer) -> None:
    async def has_schema() -> bool:
        _, _, listed = await client.ask("GET", "/mcp/tools", headers={"accept": "application/json"})
        return "outputSchema" in listed["tools"][0]

    assert await has_schema()
    for results, found in (
        ({"max_bytes": 1_000}, True),
        ({"select": "rows"}, False),
        ({"max_bytes": 1_000, "overflow": "spill"}, False),
        ({"max_bytes": 1_000, "overflow": "truncate"}, False),
    ):
        await policy(client, **results)
        assert await has_schema() is found


# --- results that are given again -------------------------------------------------------------------------------------


async def cached(client: Client, tool: str = "small", status: int = 200, **cache: Any) -> Any:
    value = {"overrides": {tool: {"cache": cache}}}
    answered, _, document = await client.ask("PATCH", "/mcp/servers/docs", value=value)
    assert answered == status, document
    return document


def calls(docs: MemoryServer) -> int:
    return sum(each.method == "tools/call" for each in docs.requests)


async def test_a_result_is_given_again_for_a_while(client: Client, docs: MemoryServer) -> None:
    await cached(client, ttl=60)
    cache = inside(client.app).result_cache  # type: ignore[arg-type]
    now = 100.0
    cache._clock = lambda: now
    for _ in range(3):
        assert text_of(await use(client, "small", a=1)) == "fine"
    assert calls(docs) == 1
    await use(client, "small", a=2)
    assert calls(docs) == 2
    now += 61
    await use(client, "small", a=1)
    assert calls(docs) == 3
    session = await handshake(client)
    answer = await ask(client, "/mcp", session, "tools/call", name="docs__small", arguments={"a": 1})
    assert (text_of(answer), calls(docs)) == ("fine", 3)


async def test_it_is_a_callers_own_or_everybodys(client: Client, docs: MemoryServer) -> None:
    _, _, made = await client.ask("POST", "/keys", value={"name": "a", "grants": {"allow": [{"servers": ["docs"]}]}})
    agent = Client(client.app, made["key"])
    for per, wanted in (("caller", 2), ("all", 1)):
        docs.requests.clear()
        await cached(client, ttl=60, per=per)
        inside(client.app).result_cache.__init__()  # type: ignore[misc, arg-type]
        for each in (client, agent, client, agent):
            await use(each, "small")
        assert calls(docs) == wanted, per


async def test_errors_and_large_results_are_not_kept(client: Client, docs: MemoryServer) -> None:
    for tool in ("fails", "many"):
        docs.requests.clear()
        await cached(client, tool, ttl=60)
        for _ in range(2):
            await use(client, tool)
        assert calls(docs) == 2, tool


async def test_only_what_may_be_repeated_is_kept(client: Client, docs: MemoryServer) -> None:
    docs.told["prose"]["annotations"] = {"readOnlyHint": False}
    await client.ask("POST", "/mcp/servers/docs/refresh")
    problem = await cached(client, "prose", 422, ttl=60)
    assert problem["field"] == "overrides.prose.cache"
    await cached(client, ttl=60)
    docs.told["small"]["annotations"] = {}
    await client.ask("POST", "/mcp/servers/docs/refresh")
    for _ in range(2):
        await use(client, "small")
    assert calls(docs) == 2
    for wrong in ({}, {"ttl": 0}, {"ttl": True}, {"ttl": 1, "per": "team"}, {"ttl": 1, "colour": 1}):
        assert "cache" in (await cached(client, "small", 422, **wrong))["field"]


async def test_the_cache_is_bounded(client: Client, docs: MemoryServer) -> None:
    await cached(client, "rows", ttl=60)
    cache = inside(client.app).result_cache  # type: ignore[arg-type]
    for number in range(5):
        await use(client, "rows", a=number)
    assert cache._size == sum(len(data) + 400 for _, data in cache._kept.values()) > 0
    assert len(cache._kept) == 5
    body = request("tools/call", name="docs__rows", arguments={"a": 1})
    assert (await client.ask("POST", "/rpc", value=body))[2]["result"]["structuredContent"]["total"] == 100
