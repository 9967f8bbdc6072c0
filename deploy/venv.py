"""Make .venv and install this project into it, saying what happens: `python3 deploy/venv.py EXTRA[,EXTRA]`.

For the Makefile. Runs on the system's Python, so it imports nothing but the standard library. pip's own words are kept
back and shown only when it fails, with one line that says what is missing.
"""

from __future__ import annotations

import itertools
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_VENV = Path(".venv")
_PYTHON = _VENV / "bin" / "python"
_OLDEST = (3, 11)
_NO_NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|NameResolution|Name or service|Network is unreachable"
    r"|Connection refused|ProxyError|No matching distribution|Could not find a version|Max retries"
)
_SHOWN_LINES = 12


def main() -> int:
    """Make what is missing; 0, or 1 after one line that says what to do."""
    extras = sys.argv[1]
    if sys.version_info < _OLDEST:
        return _fail(f"Python 3.11 or later is needed; this is {platform.python_version()}. Set PYTHON to one.")
    began = time.monotonic()
    if not _PYTHON.exists() or subprocess.run([_PYTHON, "-c", "import pip"], stderr=subprocess.DEVNULL).returncode:
        print(f"setup 1/2: making {_VENV} with Python {platform.python_version()}", flush=True)
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", _VENV], capture_output=True, text=True)
        if made.returncode:
            print(made.stdout + made.stderr, file=sys.stderr)
            return _fail("Python can't make virtual environments here; on Debian and Ubuntu: apt install python3-venv")
    print(f"setup 2/2: installing the packages for {extras} (a minute or two the first time)", flush=True)
    command = [_PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--editable", f".[{extras}]"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        said = list(_watched(pip.stdout))
    if pip.returncode:
        print("".join(said[-_SHOWN_LINES:]), file=sys.stderr, end="")
        if any(_NO_NETWORK.search(line) for line in said):
            return _fail(
                "pip could not get the packages from its index: the first run needs the network (or an index of "
                "yours: PIP_INDEX_URL), later ones do not."
            )
        return _fail("pip could not install the packages; its last words are above.")
    print(f"setup done in {time.monotonic() - began:.0f} s", flush=True)
    return 0


def _watched(lines: Iterator[str]) -> Iterator[str]:
    """Pass pip's lines on; on a terminal, show what it is at, else only that the index does not answer."""
    if not sys.stderr.isatty():
        retries = False
        for line in lines:
            if "Retrying" in line and not retries:
                retries = True
                print("setup: the package index does not answer; pip tries again", flush=True)
            yield line
        return
    with _Spinner() as spinner:
        for line in lines:
            spinner.text = line.strip()
            yield line


class _Spinner:
    """One line on the terminal that turns while something goes on, with what it is at."""

    def __init__(self) -> None:
        self.text = ""
        self._width = shutil.get_terminal_size().columns - 3
        self._done = threading.Event()
        self._turning = threading.Thread(target=self._turn, daemon=True)

    def __enter__(self) -> _Spinner:
        self._turning.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._turning.join()
        sys.stderr.write("\r\x1b[2K")
        sys.stderr.flush()

    def _turn(self) -> None:
        for turn in itertools.cycle("|/-\\"):
            sys.stderr.write(f"\r\x1b[2K{turn} {self.text[: self._width]}")
            sys.stderr.flush()
            if self._done.wait(0.15):
                return


def _fail(what: str) -> int:
    print(f"setup: {what}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
