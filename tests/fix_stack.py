"""The whole stack as processes: two replicas of two workers, nginx, stub and stores, on ports of the test's own."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

KEY = "sk-master-key-change-me"
START_SECONDS = 60.0
_ROOT = Path(__file__).parent.parent


_SPAN = 4000  # ports of each of pytest-xdist's workers, below those that the system gives to clients
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_first = 12_000 + _worker % 5 * _SPAN
_ports = itertools.cycle(_first + (at + 37 * os.getpid()) % _SPAN for at in range(_SPAN))


def free_ports(count: int) -> list[int]:
    """Ports that are free now, and that no other worker of this run takes meanwhile."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one:
            port = next(_ports)
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
    return found


class Running:
    """`python -m gateway ha` (or `run`) as a child, and the addresses of its parts."""

    def __init__(self, command: str, data_dir: Path, log: Path, extra: Mapping[str, str] | None = None) -> None:
        nginx, first, second, stub = free_ports(4)
        self.url = f"http://localhost:{nginx if command == 'ha' else first}"
        self.replicas = [f"http://localhost:{first}", f"http://localhost:{second}"]
        self.stub = f"http://localhost:{stub}/mcp"
        self.log = log
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "GATEWAY_DATA_DIR": str(data_dir),
            "GATEWAY_NGINX_PORT": str(nginx),
            "GATEWAY_PORT": str(first),
            "GATEWAY_REPLICA2_PORT": str(second),
            "GATEWAY_STUB_PORT": str(stub),
            "GATEWAY_DRAIN_SECONDS": "5",
            **(extra or {}),
        }
        self._command = command
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        said_before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", self._command],
                cwd=_ROOT, env=self.environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while b"is up" not in self.log.read_bytes()[said_before:]:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def stop(self) -> int:
        """End it as ^C does; return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)  # a test may have stopped it
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def tree(self) -> list[int]:
        """The pids of all its processes, from the parent down."""
        assert self.process is not None
        return [self.process.pid, *_descendants(self.process.pid)]

    def client(self, **how: Any) -> httpx.Client:
        return httpx.Client(
            headers={"authorization": f"Bearer {KEY}"}, timeout=20, trust_env=False, **{"base_url": self.url, **how}
        )

    def workers(self, replica: str, count: int = 2) -> dict[str, dict[str, Any]]:
        """What each worker of a replica says on /readyz, asked on new connections until all were met."""
        found: dict[str, dict[str, Any]] = {}
        deadline = time.monotonic() + START_SECONDS
        while len(found) < count:
            assert time.monotonic() < deadline, f"only the workers {sorted(found)} of {replica} answer"
            try:
                with closing(urllib.request.urlopen(f"{replica}/readyz", timeout=5)) as answer:
                    state = json.load(answer)
                found[state["worker"]] = state
            except OSError:
                time.sleep(0.05)
        return found


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A stack that tests share; they leave it as they found it."""
    folder = tmp_path_factory.mktemp("stack")
    running = Running("ha", folder / "data", folder / "log")
    try:
        running.start()
        yield running
    finally:
        if running.process is not None:
            running.stop()


@pytest.fixture
def start_stack(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a stack that the test may break."""
    started: list[Running] = []

    def start(command: str = "ha", **extra: str) -> Running:
        running = Running(command, tmp_path / "data", tmp_path / "log", extra)
        started.append(running)
        running.start()
        return running

    yield start
    for running in started:
        if running.process is not None:
            running.stop()


@contextmanager
def registered(stack: Running, name: str, **fields: Any) -> Iterator[dict[str, Any]]:
    """A server registered through nginx for the time of the block."""
    with stack.client() as client:
        answer = client.post("/mcp/servers", json={"name": name, "url": stack.stub, **fields})
        assert answer.status_code == 200, answer.text
        try:
            yield answer.json()
        finally:
            client.delete(f"/mcp/servers/{name}")


def each_worker(stack: Running, what: Callable[[httpx.Client], Any]) -> dict[tuple[str, str], Any]:
    """Ask every worker of every replica something; one connection leads to one worker."""
    found: dict[tuple[str, str], Any] = {}
    deadline = time.monotonic() + 60
    while len(found) < 4:
        assert time.monotonic() < deadline, f"only met {sorted(found)}"
        for replica in stack.replicas:
            with stack.client(base_url=replica) as client:
                state = client.get("/readyz").json()
                who = (state["replica"], state["worker"])
                if who not in found:
                    found[who] = what(client)
    return found


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
