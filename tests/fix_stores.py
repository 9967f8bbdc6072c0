"""Real Postgres and Redis: from DATABASE_URL and REDIS_URL where they are set, else from the wheels."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from gateway.run.embedded import Stores, Urls

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Urls]:
    """One Postgres and one Redis for the whole run."""
    database_url, redis_url = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    own = Stores(Path(tmp_path_factory.mktemp("stores")), postgres=database_url is None, valkey=redis_url is None)
    try:
        urls = own.start()
        yield Urls(database_url or urls.database_url, redis_url or urls.redis_url)
    finally:
        own.stop()


@pytest.fixture(scope="session")
def databases(stores: Urls) -> Iterator[list[str]]:
    """Empty databases that no test uses now; making one takes longer than most tests."""
    made: list[str] = []
    yield made
    with psycopg.connect(stores.database_url, autocommit=True) as admin:
        for name in made:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(stores: Urls, databases: list[str]) -> Iterator[str]:
    """An empty database of the test's own; it is emptied for the next one."""
    with psycopg.connect(stores.database_url, autocommit=True) as admin:
        if not databases:
            name = f"gateway_test_{os.getpid()}_{next(_numbers)}"
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            databases.append(name)
        name = databases.pop()
        url = urlunsplit(urlsplit(stores.database_url)._replace(path=f"/{name}"))
        yield url
        admin.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(name)))
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
    with psycopg.connect(url, autocommit=True) as emptied:
        emptied.execute("DROP SCHEMA public CASCADE")
        emptied.execute("CREATE SCHEMA public")
    databases.append(name)


@pytest.fixture
def redis_url(stores: Urls) -> str:
    return stores.redis_url
