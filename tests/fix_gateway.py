"""A gateway on real stores, its upstreams in memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.edge.app import Application
from gateway.model.address_policy import Address
from gateway.model.server import ServerSpec
from gateway.settings import Settings
from gateway.upstream.contract import Upstream
from gateway.upstream.memory import MemoryServer, MemoryUpstream
from tests.asgi import Client
from tests.talk import inside
from tests.waiting import until

KEY = "test-key-of-the-gateway"

Servers = dict[str, MemoryServer]
Open = Callable[..., AbstractAsyncContextManager[tuple[Application, Client]]]


async def everywhere(host: str) -> list[Address]:
    """Every name is somewhere on the public net, but for those that say otherwise."""
    if host.endswith(".inside.test"):
        return [ip_address("8.8.8.8"), ip_address("10.0.0.1")]
    return [ip_address("8.8.8.8")]


@pytest.fixture
def servers() -> Servers:
    """What stands behind http://<name>.test/mcp, for every gateway of the test."""
    return {}


@pytest.fixture
def open_app(database_url: str, redis_url: str, servers: Servers) -> Open:
    """Open further gateways on the test's stores, as other workers would."""

    def connect(spec: ServerSpec) -> Upstream:
        name = (urlsplit(spec.url).hostname or "").removesuffix(".test")
        return MemoryUpstream(spec.name, servers.setdefault(name, MemoryServer(down="nobody there")))

    @asynccontextmanager
    async def open_app(**changes: Any) -> AsyncIterator[tuple[Application, Client]]:
        values = {"master_key": KEY, "database_url": database_url, "redis_url": redis_url, "replica": "test"}
        how = {"connect": changes.pop("connect", connect), "resolve": changes.pop("resolve", everywhere)}
        app = Application(Settings(**values | changes), worker="1", **how)
        async with app.lifespan():
            yield app, Client(app, KEY)

    return open_app


@pytest.fixture
async def app(open_app: Open) -> AsyncIterator[Application]:
    async with open_app() as (app, _):
        yield app


@pytest.fixture
def client(app: Application) -> Client:
    """Somebody with the master key."""
    return Client(app, KEY)


@pytest.fixture
def stranger(app: Application) -> Client:
    """Somebody without a key."""
    return Client(app)


@pytest.fixture
async def registered(client: Client, servers: Servers) -> MemoryServer:
    """A server `demo` with a tool `echo`, registered and ready."""
    servers["demo"] = MemoryServer()
    status, _, stored = await client.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
    assert (status, stored["state"]) == (200, "ready")
    servers["demo"].requests.clear()
    return servers["demo"]


@pytest.fixture
async def workers(open_app: Open, servers: Servers) -> AsyncIterator[tuple[Client, Client]]:
    """Two workers, and a server `demo` registered."""
    servers["demo"] = MemoryServer()
    async with open_app(session_idle_seconds=60) as (_, one), open_app(session_idle_seconds=60) as (other, two):
        await one.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
        await until(lambda: "demo" in inside(other).sync.catalogue.servers)  # else its streams tell of a change
        yield one, two


@pytest.fixture
def demo(workers: tuple[Client, Client], servers: Servers) -> MemoryServer:
    return servers["demo"]
