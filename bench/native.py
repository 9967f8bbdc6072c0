"""The two compiled programs of the benchmarks, built when first needed: the upstream and the load generator.

With the system's C compiler where there is one, else with the one that PyPI's `ziglang` brings along.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_SOURCES = Path(__file__).parent / "native"
_BUILT = Path(__file__).parent.parent / "build" / "bench"


def built(name: str) -> Path:
    """The program made from `native/{name}.c`."""
    source = _SOURCES / f"{name}.c"
    program = _BUILT / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        _BUILT.mkdir(parents=True, exist_ok=True)
        made = program.with_suffix(f".{os.getpid()}.new")
        subprocess.run([*_compiler(), "-std=gnu11", "-O2", "-o", made, source], check=True)
        made.rename(program)
    return program


def _compiler() -> list[str]:
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found:
        return [found]
    if find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise SystemExit("bench: no C compiler; install one, or: .venv/bin/python -m pip install ziglang")
