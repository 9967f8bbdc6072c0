"""What the benchmarks need of the machine: processes and their cores, CPU time and memory; facts about the host."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

_TICK = os.sysconf("SC_CLK_TCK")
_PACKAGES = ("hypercorn", "httptools", "uvloop", "orjson", "jsonrpcserver", "httpx", "uvicorn", "granian")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def start(
    stack: ExitStack, command: list[str], environment: dict[str, str] | None = None, folder: Path | None = None
) -> int:
    """Start a process that ends with the stack. What it writes on stderr is written, as in earnest, but not shown."""
    process = subprocess.Popen(
        command,
        env=environment or dict(os.environ),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    return process.pid


def tree(pid: int, apart: Path | None = None) -> list[int]:
    """A process and all below it, without those that run the program `apart`."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree(int(child), apart)
    return [each for each in found if not apart or not runs(each, apart)]


def runs(pid: int, program: Path) -> bool:
    """Whether a process runs a program."""
    return Path(f"/proc/{pid}/exe").resolve() == program.resolve()


def cpu_seconds(pids: list[int], apart: Path | None = None) -> float:
    """CPU time that these processes and those below them have used, without the program `apart`."""
    ticks = 0
    for pid in pids:
        for each in tree(pid, apart):
            values = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(values[11]) + int(values[12])
    return ticks / _TICK


def memory(pid: int) -> int:
    """Bytes that the largest of a process and those below it has in memory: a gateway's worker."""
    return max(_resident(each) for each in tree(pid))


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return 0


def proportional_memory(pids: list[int], apart: Path | None = None) -> int:
    """Bytes that processes and those below them have in memory; of what some share, each has its part."""
    total = 0
    for pid in pids:
        for each in tree(pid, apart):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) << 10
    return total


def pin(pids: list[int], cores: set[int]) -> None:
    """Keep all threads of processes, and of those below them, on these cores, as far as there are any."""
    wanted = {core for core in cores if core < (os.cpu_count() or 1)} or {0}
    for pid in pids:
        for each in tree(pid):
            with suppress(FileNotFoundError):  # a process that has just ended
                for task in Path(f"/proc/{each}/task").iterdir():
                    with suppress(ProcessLookupError):  # a thread that has just ended
                        os.sched_setaffinity(int(task.name), wanted)


def facts() -> dict[str, Any]:
    """What a figure depends on beside the code."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ImportError:
        return None
