"""Trouble under load: bad upstreams among good ones, and stores that stop, freeze and come back."""

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.run.embedded import Stores
from tests.fix_stack import Running, free_ports, wait_until

pytestmark = pytest.mark.system
Start = Callable[..., Running]


class Load:
    """Calls that go on in threads until stopped; remembers each answer's status and time."""

    def __init__(self, stack: Running, bodies: list[dict[str, Any]], threads: int = 3) -> None:
        self._stack = stack
        self._bodies = bodies
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self._running = [self._pool.submit(self._call_on, number) for number in range(threads)]
        self.seconds: list[float] = []
        self.failed: list[str] = []

    def _call_on(self, number: int) -> None:
        with self._stack.client() as client:
            while not self._stopping.is_set():
                body = self._bodies[number % len(self._bodies)]
                number += 1
                began = time.monotonic()
                try:
                    answer = client.post("/mcp/tools/call", json=body)
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                self.seconds.append(time.monotonic() - began)
                if answer.status_code != 200 or "error" in answer.json():
                    self.failed.append(answer.text[:300])

    def more(self, count: int) -> None:
        """Wait for this many further answers."""
        target = len(self.seconds) + count
        wait_until(lambda: len(self.seconds) >= target or bool(self.failed), 60)

    def stop(self) -> None:
        self._stopping.set()
        for one in self._running:
            one.result(60)
        self._pool.shutdown()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    own = Stores(tmp_path / "stores")
    own.start()
    yield own
    own.stop()


def urls(stores: Stores) -> dict[str, str]:
    started = stores.urls
    assert started is not None
    return {"DATABASE_URL": started.database_url, "REDIS_URL": started.redis_url}


def register(stack: Running, name: str, url: str, **fields: Any) -> dict[str, Any]:
    with stack.client() as client:
        answer = client.put(f"/mcp/servers/{name}", json={"url": url, **fields})
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown


def readiness(stack: Running) -> list[Any]:
    """The `degraded` lists of all workers; None for one that does not answer."""
    try:
        return [state["degraded"] for replica in stack.replicas for state in stack.workers(replica).values()]
    except AssertionError:
        return [None]


@pytest.mark.alone
def test_bad_servers_among_twenty_cost_the_others_nothing(start_stack: Start) -> None:
    stack = start_stack("ha", GATEWAY_RETRY_SECONDS="1", GATEWAY_REFRESH_SECONDS="2")
    for number in range(17):
        register(stack, f"good-{number}", stack.stub)
    bodies = [{"name": f"good-{number}__stub.echo", "arguments": {"n": number}} for number in range(17)]
    ports = free_ports(3)
    bad = [_bad_server(kind, port) for kind, port in zip(("hangs", "floods", "flaps"), ports, strict=True)]
    try:
        calm = Load(stack, bodies)
        calm.more(200)
        calm.stop()
        for kind, port in zip(("hangs", "floods", "flaps"), ports, strict=True):
            register(stack, kind, f"http://127.0.0.1:{port}/mcp", timeout_seconds=5)
        trouble = Load(stack, [{"name": f"{kind}__t", "arguments": {}} for kind in ("hangs", "floods", "flaps")])
        rough = Load(stack, bodies)
        rough.more(200)
        rough.stop()
        trouble.stop()
    finally:
        for process in bad:
            process.kill()
            process.wait()
    for name, load in (("calm", calm), ("with trouble", rough)):
        print(f"{name}: {len(load.seconds)} calls, median {statistics.median(load.seconds) * 1e3:.1f} ms")
    assert calm.failed == []
    assert rough.failed == []
    assert trouble.failed, "the bad servers were not bad"
    # side by side in one run, and with twice the load on two noisy cores: the same order of magnitude
    assert statistics.median(rough.seconds) < 8 * statistics.median(calm.seconds) + 0.05


def _bad_server(kind: str, port: int) -> subprocess.Popen[bytes]:
    folder = Path(__file__).parent
    process = subprocess.Popen([sys.executable, str(folder / "bad_server.py"), kind, str(port)])
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{port}/", timeout=1, trust_env=False)
            break
        except httpx.HTTPError:
            time.sleep(0.05)
    return process


def test_postgres_stops_for_ten_seconds_and_comes_back(start_stack: Start, stores: Stores) -> None:
    stack = start_stack("ha", **urls(stores))
    register(stack, "stub", stack.stub)
    load = Load(stack, [{"name": "stub.echo", "arguments": {"x": 1}}])
    load.more(30)
    stores.stop_one("postgres")
    wait_until(lambda: all(state for state in readiness(stack)))
    with stack.client() as client:
        began = time.monotonic()
        refused = client.put("/mcp/servers/other", json={"url": stack.stub})
        assert refused.status_code == 503
        assert "database" in refused.json()["detail"]
        assert client.get("/mcp/tools", headers={"accept": "application/json"}).status_code == 200
        load.more(100)
        time.sleep(max(0.0, 10 - (time.monotonic() - began)))
    stores.start_one("postgres")
    wait_until(lambda: not any(readiness(stack)), 60)
    register(stack, "other", stack.stub)
    load.more(30)
    load.stop()
    assert load.failed == []


def test_redis_freezes_stops_and_comes_back(start_stack: Start, stores: Stores) -> None:
    stack = start_stack("ha", **urls(stores))
    register(stack, "stub", stack.stub)
    load = Load(stack, [{"name": "stub.echo", "arguments": {"x": 1}}])
    load.more(30)
    valkey = stores.pid("valkey")
    os.kill(valkey, signal.SIGSTOP)
    try:
        wait_until(lambda: all(state for state in readiness(stack)))
        register(stack, "frozen", stack.stub)
        seen_everywhere(stack, "frozen")
        load.more(50)
    finally:
        os.kill(valkey, signal.SIGCONT)
    wait_until(lambda: not any(readiness(stack)), 60)
    stores.stop_one("valkey")
    wait_until(lambda: all(state for state in readiness(stack)))
    register(stack, "stopped", stack.stub)
    seen_everywhere(stack, "stopped")
    load.more(50)
    stores.start_one("valkey")
    wait_until(lambda: not any(readiness(stack)), 60)
    load.stop()
    assert load.failed == []


def seen_everywhere(stack: Running, name: str) -> None:
    """Wait until both replicas list a server: with Redis gone, the poll brings it."""
    for replica in stack.replicas:
        with stack.client(base_url=replica) as client:
            wait_until(
                lambda client=client: name in client.get("/mcp/servers", headers={"accept": "application/json"}).text  # type: ignore[misc]  # bound as it is
            )
