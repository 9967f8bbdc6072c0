"""Public MCP servers and clients from npm."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import node
from tests.fix_stack import free_ports

Install = Callable[[str], Path]


@pytest.fixture(scope="session")
def npm_install() -> Install:
    """Install a package (`name@version`) and return its folder."""
    return node.install


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def everything_server(npm_install: Install) -> Iterator[str]:
    """The public everything server, that nobody here wrote; its URL."""
    folder = npm_install("@modelcontextprotocol/server-everything@2026.8.31")
    [port] = free_ports(1)
    process = subprocess.Popen(
        ["node", str(folder / "dist" / "index.js"), "streamableHttp"],
        env={**node.environment(), "PORT": str(port)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not _listens(port):
            assert process.poll() is None, "the everything server ended at once"
            assert time.monotonic() < deadline, "the everything server does not listen"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(10)
