"""The everything server on the official SDK (`tests/everything.py`), as processes, and gateways that reach them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.asgi import Client
from tests.fix_gateway import Open
from tests.fix_stack import free_ports

START_SECONDS = 30.0


@contextmanager
def everything(*how: str) -> Iterator[int]:
    """The everything server as a process; its port."""
    [port] = free_ports(1)
    process = subprocess.Popen([sys.executable, "-m", "tests.everything", str(port), *how])
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, "the everything server ended at once"
            assert time.monotonic() < deadline, "the everything server does not listen"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def upstreams() -> Iterator[dict[str, str]]:
    """The URL of the everything server, by transport."""
    with ExitStack() as parts:
        http = parts.enter_context(everything())
        sse = parts.enter_context(everything("sse"))
        yield {"streamable_http": f"http://127.0.0.1:{http}/mcp", "sse": f"http://127.0.0.1:{sse}/sse"}


@pytest.fixture
async def two_real(open_app: Open) -> AsyncIterator[tuple[Client, Client]]:
    """Two workers that talk to real servers."""
    real = {"connect": None, "resolve": None, "allow_private_upstreams": True}
    async with open_app(**real) as (_, one), open_app(**real) as (_, two):
        yield one, two


@contextmanager
def bridge(folder: Path) -> Iterator[str]:
    """The process that runs stdio servers; its socket."""
    path = folder / "socket"
    reading, writing = os.pipe()
    environment = {
        **os.environ,
        "GATEWAY_ALLOW_STDIO": "true",
        "DATABASE_URL": "postgres://secret",
        "GATEWAY_PORT": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.programs.app", str(path), str(reading)], pass_fds=(reading,), env=environment
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not path.exists():
            assert process.poll() is None, "the bridge ended at once"
            assert time.monotonic() < deadline, "the bridge does not listen"
            time.sleep(0.05)
        yield str(path)
    finally:
        os.close(writing)
        process.wait(20)
        os.close(reading)


@pytest.fixture(scope="session")
def bridges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two bridges, as two machines have them."""
    with ExitStack() as parts:
        one, two = (parts.enter_context(bridge(tmp_path_factory.mktemp("bridge"))) for _ in range(2))
        yield one, two


@pytest.fixture
async def with_bridges(open_app: Open, bridges: tuple[str, str]) -> AsyncIterator[tuple[Client, Client]]:
    """Two workers that run programs, each on a machine of its own."""
    real = {"connect": None, "resolve": None, "allow_stdio": True}
    async with open_app(**real, bridge=bridges[0]) as (_, one), open_app(**real, bridge=bridges[1]) as (_, two):
        yield one, two
