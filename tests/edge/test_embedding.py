"""The examples of embedding in the documentation, run as they stand; and what embedding must not disturb."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import Settings, create_app
from gateway.errors import StoreUnavailable
from tests.asgi import Client
from tests.fix_gateway import KEY, Open

pytestmark = pytest.mark.anyio

README = (Path(__file__).parent.parent.parent / "docs" / "embedding.rst").read_text()
EXAMPLES = [
    "".join(line.removeprefix("    ") for line in block.splitlines(keepends=True))
    for block in re.findall(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", README)
]
JSON = {"accept": "application/json"}


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[None]:
    """Run a host's lifespan, as a server does."""
    import asyncio

    inbox: asyncio.Queue[Any] = asyncio.Queue()
    outbox: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, inbox.get, outbox.put))
    async with asyncio.timeout(20):
        await inbox.put({"type": "lifespan.startup"})
        assert (await outbox.get())["type"] == "lifespan.startup.complete"
    yield
    async with asyncio.timeout(20):
        await inbox.put({"type": "lifespan.shutdown"})
        assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
        await task


@pytest.mark.parametrize("example", EXAMPLES, ids=["starlette", "fastapi", "bare"])
async def test_the_readmes_example_serves_below_its_prefix(
    example: str, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("GATEWAY_MASTER_KEY", KEY)
    made: dict[str, Any] = {}
    exec(compile(example, "embedding.rst", "exec"), made)
    client = Client(made["app"], KEY)
    async with running(made["app"]):
        status, _, document = await client.ask("GET", "/mcp-gateway/v1/mcp/registry.json")
        assert status == 200
        [own] = document["servers"]
        assert own["server"]["remotes"][0]["url"] == "http://localhost/mcp-gateway/mcp"
        assert (await client.ask("GET", "/mcp-gateway/mcp/servers", headers=JSON))[2]["servers"] == []
        assert (await client.ask("GET", "/mcp/servers", headers=JSON))[0] == 404
    await made["gateway"].close()


def test_there_are_three_examples() -> None:
    assert len(EXAMPLES) == 3


async def test_two_gateways_live_in_one_process(open_app: Open, database_url: str, redis_url: str) -> None:
    async with AsyncExitStack() as stack:
        _, one = await stack.enter_async_context(open_app(replica="one"))
        _, two = await stack.enter_async_context(open_app(replica="two", master_key="another-key"))
        assert (await one.ask("GET", "/readyz"))[2]["replica"] == "one"
        assert (await two.ask("GET", "/mcp/servers", headers=JSON))[0] == 401
        two.headers["authorization"] = "Bearer another-key"
        assert (await two.ask("GET", "/mcp/servers", headers=JSON))[0] == 200
        assert 'replica="one"' not in (await two.ask("GET", "/metrics"))[2].decode()


async def test_without_a_database_it_says_so_and_opens_when_there_is_one() -> None:
    nowhere = "postgresql://postgres@127.0.0.1:1/x"
    app = create_app(Settings(master_key=KEY, database_url=nowhere, redis_url="redis://127.0.0.1:1"))
    status, headers, problem = await Client(app, KEY).ask("GET", "/mcp/servers")
    assert (status, headers["retry-after"]) == (503, "1")
    assert "database" in problem["detail"]
    status, _, state = await Client(app, KEY).ask("GET", "/readyz")
    assert (status, state["status"]) == (503, "starting")
    with pytest.raises(StoreUnavailable):
        async with app.lifespan():
            pass
