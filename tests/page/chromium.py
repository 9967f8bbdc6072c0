"""Chromium for the page's tests: one that is there, or Debian's package, installed as root or unpacked by a plain user.

A plain user gets the package and what it depends on by `apt-get download`, and runs it from `build/chromium`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

_FOLDER = Path(__file__).parent.parent.parent / "build" / "chromium"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip


@dataclass(frozen=True)
class Chromium:
    """Where it is, and what must be in its environment."""

    path: str
    environment: dict[str, str] = field(default_factory=dict)


def chromium() -> Chromium:
    """Find Chromium, or get it. Raises RuntimeError, which says what to install."""
    found = os.environ.get("CHROMIUM") or next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return Chromium(found)
    if shutil.which("apt-get") is None:
        raise RuntimeError("There is no Chromium, and no apt-get to get it with: install it, or set CHROMIUM.")
    if os.geteuid() == 0:
        _run("apt-get", "update", "-q", may_fail=True)
        _run("apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium", "fonts-dejavu-core")
        return Chromium("/usr/bin/chromium")
    return _unpacked()


def _unpacked() -> Chromium:
    """Debian's package and its dependencies, in a folder of our own."""
    root = _FOLDER / "root"
    binary = root / "usr/lib/chromium/chromium"
    if not binary.exists():
        packages, lists = _FOLDER / "packages", _FOLDER / "state" / "lists" / "partial"
        shutil.rmtree(_FOLDER, ignore_errors=True)
        for each in (packages, lists, root, _FOLDER / "cache"):
            each.mkdir(parents=True)
        own = [f"-oDir::State={_FOLDER / 'state'}", f"-oDir::Cache={_FOLDER / 'cache'}", "-oDebug::NoLocking=1"]
        own += ["-oDir::State::status=/var/lib/dpkg/status", "-oAPT::Sandbox::User="]
        _run("apt-get", *own, "update", "-q")
        tree = _run(
            "apt-cache", *own, "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
            "--no-breaks", "--no-replaces", "--no-enhances", "chromium",
        )  # fmt: skip
        names = [name for name in re.findall(r"^(\w\S*)$", tree, re.MULTILINE) if not _is_part_of_the_system(name)]
        _run("apt-get", *own, "download", *names, "fonts-dejavu-core", folder=packages)
        for package in packages.glob("*.deb"):
            _run("dpkg", "-x", str(package), str(root))
    libraries = sorted({str(each.parent) for each in root.glob("**/lib*.so*")})  # some stand in folders of their own
    return Chromium(str(binary), {"LD_LIBRARY_PATH": ":".join(libraries)})


def _is_part_of_the_system(name: str) -> bool:
    """What is there anyway, and must be of one piece with what runs already."""
    return name.startswith(("libc6", "libgcc", "gcc-", "libc-", "base-", "dpkg", "perl", "debconf", "init-system"))


def _run(*command: str, folder: Path | None = None, may_fail: bool = False) -> str:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, stdin=subprocess.DEVNULL
    )
    if done.returncode and not may_fail:
        words = " ".join(command)[:100]
        raise RuntimeError(
            f"There is no Chromium, and `{words}` did not get it:\n{done.stdout[-500:]}{done.stderr[-1500:]}"
        )
    return done.stdout


if __name__ == "__main__":
    try:
        print(chromium().path)
    except RuntimeError as error:
        sys.exit(str(error))
