"""The secret is rotated replica by replica while clients call, and nothing is lost."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack

import pytest

from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import call, initialize, inside

pytestmark = [pytest.mark.anyio, pytest.mark.system]
OLD, NEW = "old-secret-of-the-gateway-0123456789", "new-secret-of-the-gateway-0123456789"
STEPS: list[list[tuple[str, ...]]] = [
    [(OLD,), (OLD,)],
    [(OLD, NEW), (OLD,)],
    [(OLD, NEW), (OLD, NEW)],
    [(NEW, OLD), (OLD, NEW)],
    [(NEW, OLD), (NEW, OLD)],
]


async def rotate(database_url: str, secret: str) -> str:
    environment = {**os.environ, "DATABASE_URL": database_url, "GATEWAY_SECRET": secret}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "secrets", "rotate",
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said
    return said.decode()


@pytest.mark.parametrize("first", [(OLD,), ()])
async def test_the_secret_is_rotated_under_load_and_nothing_is_lost(
    open_app: Open, servers: Servers, database_url: str, first: tuple[str, ...]
) -> None:
    servers["demo"] = MemoryServer()
    demo = {"name": "demo", "url": "http://demo.test/mcp", "headers": {"X-Key": "s3cret"}}
    steps: list[list[tuple[str, ...]]] = STEPS if first else [[(), ()], [(NEW,), ()], [(NEW,), (NEW,)]]
    async with open_app(secret=first) as (_, client):
        await client.ask("POST", "/mcp/servers", value=demo)
        sessions = [await initialize(client) for _ in range(3)]
    answered = 0
    for step in steps:
        async with AsyncExitStack() as replicas:
            clients: list[Client] = [(await replicas.enter_async_context(open_app(secret=each)))[1] for each in step]

            async def calls(client: Client, session: dict[str, str]) -> int:
                for _ in range(5):
                    assert "result" in await call(client, session, "echo")
                return 5

            rotating = step == steps[-1]
            counts = await asyncio.gather(
                *(calls(client, session) for client in clients for session in sessions),
                *([rotate(database_url, ",".join(step[0]))] if rotating else []),
            )
            answered += sum(each for each in counts if isinstance(each, int))
            if first or step[0] == step[1]:  # a session of this replica's is readable at the other one
                session = await initialize(clients[0])
                assert "result" in await call(clients[1], session, "echo")
    assert answered == 30 * len(steps)
    async with open_app(secret=(NEW,)) as (app, client):
        server = inside(app).sync.catalogue.servers["demo"]
        assert dict(server.spec.headers) == {"X-Key": "s3cret"}
    assert "sealed 0 servers" in await rotate(database_url, NEW)
