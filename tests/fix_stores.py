"""Real Postgres and Redis: from DATABASE_URL and REDIS_URL where they are set, else from the wheels."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from gateway.embedded import Stores, Urls

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


@pytest.fixture
def database_url(stores: Urls) -> Iterator[str]:
    """An empty database of the test's own."""
    name = f"gateway_test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(stores.database_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        yield urlunsplit(urlsplit(stores.database_url)._replace(path=f"/{name}"))
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def redis_url(stores: Urls) -> str:
    return stores.redis_url
