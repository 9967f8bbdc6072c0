"""The everything server on the official SDK (`tests/everything.py`), as processes, and gateways that reach them."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from gateway.upstream.connect import resolve
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
    real = {"connect": None, "resolve": resolve, "allow_private_upstreams": True}
    async with open_app(**real) as (_, one), open_app(**real) as (_, two):
        yield one, two
