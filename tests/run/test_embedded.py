"""The embedded stores where a home is closed, a path is long or holds a space, and where root is not quite root."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest
import redis

from gateway.run.embedded import Stores, Urls

_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL = 24, 47, 4
_ALL_CAPABILITIES = 41


@contextmanager
def started(folder: Path) -> Iterator[Urls]:
    stores = Stores(folder)
    try:
        yield stores.start()
    finally:
        stores.stop()


@pytest.mark.parametrize("name", ["data", "a b/c d", "/".join(["long" * 30] * 3)])
def test_both_stores_answer_below_a_folder_that_is_closed_to_others(tmp_path: Path, name: str) -> None:
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    folder = closed / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with started(folder) as urls:
        with psycopg.connect(urls.database_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with redis.Redis.from_url(urls.redis_url) as client:
            assert client.ping()


def without_capabilities() -> Callable[[], None]:
    libc = ctypes.CDLL(None)

    def drop() -> None:
        for number in range(_ALL_CAPABILITIES):
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)

    return drop


def test_root_without_capabilities_gets_one_line_and_a_plain_user_needs_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "serve"]
    environment = {
        "PATH": os.environ["PATH"],
        "GATEWAY_DATA_DIR": str(tmp_path / "data"),
        "GATEWAY_MASTER_KEY": "long-enough",
        "GATEWAY_PORT": "70000" if os.geteuid() else "0",
    }
    run = subprocess.run(
        command, env=environment, preexec_fn=without_capabilities(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (run.returncode, len(run.stderr.strip().splitlines())) == (2, 1)
    if os.geteuid() == 0:
        assert "may not become another user" in run.stderr
        assert "Run the gateway as another user, or set DATABASE_URL." in run.stderr
    else:
        assert "GATEWAY_PORT" in run.stderr  # that is all a user has to mend


@pytest.mark.parametrize("name", ["data", "/".join(["long" * 30] * 3)])
def test_the_sockets_are_closed_to_everybody_else(tmp_path: Path, name: str) -> None:
    """Postgres trusts whoever reaches its socket; under root it could read every file for them."""
    folder = tmp_path / name
    folder.mkdir(mode=0o755, parents=True)
    with started(folder) as urls:
        sockets = Path(unquote(urls.database_url.partition("host=")[2]))
        above = sockets.parent.stat()
        assert (above.st_uid, above.st_mode & 0o777) == (os.geteuid(), 0o700)
    assert not list(sockets.glob("*"))


def test_the_word_of_an_owner_that_was_killed_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"database_url": "postgresql://gone/", "redis_url": "redis://gone/"}')
    with started(tmp_path) as urls:
        assert "gone" not in urls.database_url
        assert "gone" not in (tmp_path / "state.json").read_text()
