"""One replica under `serve`, as an operator runs it: its start, its settings, its end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

from gateway.run.embedded import Urls
from tests.fix_stack import free_ports

pytestmark = pytest.mark.system
KEY = "key-of-this-replica"
ROOT = str(Path(__file__).parent.parent.parent)


class Replica:
    """A `serve` on stores that are there, and what it wrote."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.log = folder / "serve.log"
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {"PATH": os.environ["PATH"], "GATEWAY_PORT": str(self.port), **environment}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve"],
                env=self.environment, cwd=ROOT, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def ready(self) -> "Replica":
        deadline = time.monotonic() + 30
        while self.status("/readyz") != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return self

    def status(self, path: str) -> int:
        try:
            return httpx.get(self.url + path, trust_env=False, timeout=5).status_code
        except httpx.TransportError:
            return 0

    def ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {KEY}", "accept": "application/json"} | how.pop("headers", {})
        return httpx.request(method, self.url + path, headers=headers, trust_env=False, timeout=30, **how)


@pytest.fixture
def serve(tmp_path: Path, stores: Urls, database_url: str) -> Iterator[Callable[..., Replica]]:
    """Start a replica on the test's own database; `ready()` waits for it."""
    started: list[Replica] = []

    def start(**environment: str) -> Replica:
        known = {
            "DATABASE_URL": database_url, "REDIS_URL": stores.redis_url, "GATEWAY_MASTER_KEY": KEY,
            "GATEWAY_WORKERS": "1", "GATEWAY_ALLOW_PRIVATE_UPSTREAMS": "true",
        }  # fmt: skip
        started.append(Replica(tmp_path, known | environment))
        return started[-1]

    yield start
    for replica in started:
        if replica.process.poll() is None:
            replica.process.terminate()
        replica.process.wait(40)


def test_a_call_of_a_program_that_is_under_way_at_the_end_is_finished(serve: Callable[..., Replica]) -> None:
    replica = serve(GATEWAY_ALLOW_STDIO="true").ready()
    spec = {
        "transport_type": "stdio", "command": sys.executable, "args": ["-m", "tests.bad_program", "slow"], "cwd": ROOT,
    }  # fmt: skip
    replica.ask("PUT", "/mcp/servers/slow", json=spec).raise_for_status()
    assert replica.ask("POST", "/mcp/servers/slow/refresh").json()["state"] == "ready"
    said: dict[str, httpx.Response] = {}

    def call() -> None:
        said["call"] = replica.ask("POST", "/mcp/tools/call", json={"name": "slow__do"})

    calling = threading.Thread(target=call)
    calling.start()
    time.sleep(0.7)
    replica.process.send_signal(signal.SIGTERM)
    calling.join(30)
    assert said["call"].status_code == 200, said["call"].text
    assert replica.process.wait(30) == 0


@pytest.mark.parametrize("command", ["serve", "migrate"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://nobody@127.0.0.1:1/x", "Connection refused"),
        ("postgresql://nobody@no-such-host.invalid/x", "no-such-host.invalid"),
        ("{stores}/no_such_database", "does not exist"),
        ("nonsense", "no URL of a database"),
        ("postgres//u:s3cret@h/db", "no URL of a database"),
        ("postgresql://u:s3c%zzret@h/db", "no URL of a database"),
    ],
)
def test_a_wrong_database_url_is_one_line_and_an_exit_code(stores: Urls, command: str, url: str, said: str) -> None:
    parts = urlsplit(stores.database_url)
    url = urlunsplit(parts._replace(path="/no_such_database")) if url.startswith("{") else url
    environment = {
        "PATH": os.environ["PATH"], "DATABASE_URL": url, "REDIS_URL": stores.redis_url, "GATEWAY_MASTER_KEY": KEY,
        "GATEWAY_PORT": str(free_ports(1)[0]),
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-m", "gateway", command],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (run.returncode, len(run.stderr.strip().splitlines())) == (2, 1), run.stderr
    assert run.stderr.startswith("mcp-gateway: DATABASE_URL: ")
    assert said in run.stderr
    assert "try again" not in run.stderr
    assert "s3c" not in run.stderr
    assert "workers on" not in run.stdout


def test_a_replica_that_leaves_says_so_first_and_serves_on(serve: Callable[..., Replica]) -> None:
    replica = serve(GATEWAY_DRAIN_DELAY="3", GATEWAY_WORKER="2").ready()
    assert "did you mean GATEWAY_WORKERS?" in replica.log.read_text()
    time.sleep(2.1)  # a worker that has just started is told a moment later
    replica.process.terminate()
    deadline = time.monotonic() + 10
    while replica.status("/readyz") == 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert replica.status("/readyz") == 503
    assert replica.ask("GET", "/mcp/tools").status_code == 200
    assert replica.process.wait(30) == 0
    assert replica.status("/readyz") == 0


def test_a_second_signal_cuts_the_delay_short(serve: Callable[..., Replica]) -> None:
    replica = serve(GATEWAY_DRAIN_DELAY="600").ready()
    replica.process.terminate()
    time.sleep(0.3)
    assert replica.process.poll() is None
    replica.process.terminate()
    assert replica.process.wait(30) == 0


HANGS = """
import signal, sys
if "gateway.run.worker" in " ".join(sys.orig_argv):
    def hang_where_nobody_returns(*_):
        while True:
            pass
    signal.signal(signal.SIGRTMIN, hang_where_nobody_returns)
"""


def test_a_worker_that_hangs_says_where_and_is_replaced(serve: Callable[..., Replica], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGS)
    replica = serve(GATEWAY_WORKERS="1", GATEWAY_HANG_SECONDS="2", PYTHONPATH=str(tmp_path)).ready()
    [worker] = workers_of(replica)
    time.sleep(3)
    assert workers_of(replica) == [worker]  # one that works is left alone
    os.kill(worker, signal.SIGRTMIN)
    deadline = time.monotonic() + 30
    while workers_of(replica) == [worker] or replica.status("/readyz") != 200:
        assert time.monotonic() < deadline, replica.log.read_text()
        time.sleep(0.1)
    said = replica.log.read_text()
    assert "worker 1 hangs" in said
    assert "hang_where_nobody_returns" in said


def workers_of(replica: Replica) -> list[int]:
    found = []
    for child in Path(f"/proc/{replica.process.pid}/task/{replica.process.pid}/children").read_text().split():
        if b"gateway.run.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(int(child))
    return found
