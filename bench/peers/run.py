"""One run: the ways that are started, their rounds in turns, the rows and the goals.

A peer that fails in any way is a row that says why; the others go on.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load import Load, Round, run
from bench.machine import free_port, pin, proportional_memory, runs, tree
from bench.native import built
from bench.peers.install import Unavailable, last_line
from bench.peers.known import Peer, Place
from bench.peers.wire import open_session
from bench.report import goal
from bench.ways import Way

CONNECTIONS = 32
_CORE, _OTHER_CORE = 1, 0
_WARM_SECONDS = 1.0
_AWAKE_SECONDS = 0.5
_CALLS_EACH, _LONGEST_SECONDS = 6, 10.0  # a round of a slow way lasts so many of its calls, up to this
_READY_SECONDS = 120
_OURS = "gateway, /mcp"


@dataclass
class Row:
    """The rounds of one way, or the reason why there are none or no more."""

    name: str
    language: str = ""
    version: str = ""
    how: str = ""
    way: Way | None = None
    rounds: list[Round] = field(default_factory=list)
    memory: int = 0
    reason: str = ""

    @property
    def failed(self) -> int:
        return sum(each.failed for each in self.rounds)

    @property
    def is_right(self) -> bool:
        return not self.reason and any(each.calls for each in self.rounds)

    def middle(self, name: str) -> float:
        return float(statistics.median(getattr(each, name) for each in self.rounds))

    def ratio(self, other: Row) -> float:
        """Calls a second to another row's, round by round."""
        pairs = zip(self.rounds, other.rounds, strict=False)
        return float(statistics.median(ours.rate / max(theirs.rate, 1e-9) for ours, theirs in pairs))

    def as_json(self) -> dict[str, Any]:
        known = {"way": self.name, "language": self.language, "version": self.version, "how": self.how}
        shape = {"what": "JSON call", "connections": CONNECTIONS, "failed": self.failed, "reason": self.reason}
        if not self.rounds:
            return known | shape
        rates = [each.rate for each in self.rounds]
        return known | {
            "calls_per_second": round(self.middle("rate"), 1),
            "spread": [round(min(rates), 1), round(max(rates), 1)],
            "cpu_us_per_call": round(self.middle("cpu_us"), 1),
            **{f"{name}_us": round(self.middle(name), 1) for name in ("p50", "p90", "p99", "p999", "max")},
            "memory_mib": round(self.memory / (1 << 20), 1),
        } | shape  # fmt: skip


def started(stack: ExitStack, folder: Path, peer: Peer, upstream: int) -> Row:
    """Install and start a peer: a row that can be measured, or one with the reason."""
    row = Row(peer.name, peer.language, f"{peer.package.registry} {peer.package.version}", peer.how)
    try:
        peer.package.install()
        row.way = _way(stack, folder, peer, upstream)
    except Unavailable as error:
        row.reason = str(error)
    except Exception as error:  # whatever a peer's answers or files do to us, the others go on
        row.reason = f"can't be started: {type(error).__name__}: {error}".partition("\n")[0][:200]
    return row


def _way(stack: ExitStack, folder: Path, peer: Peer, upstream: int) -> Way:
    place = Place(free_port(), folder / peer.name.replace(", ", "-").replace(" ", "-"), upstream)
    place.folder.mkdir()
    environment = dict(os.environ) | peer.environment(place)
    with (place.folder / "output").open("wb") as output:
        process = subprocess.Popen(
            peer.command(peer, place),
            env=environment,
            cwd=place.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    stack.callback(_end, process)
    _wait_for(process, place, peer.ready)
    peer.register(place)
    opened = open_session(place.port, peer.path, peer.headers)
    _signal(process.pid, signal.SIGSTOP)
    return Way(peer.name, place.port, [process.pid], peer.path, opened.headers, opened.prefix)


def _wait_for(process: subprocess.Popen[bytes], place: Place, path: str) -> None:
    """Wait until a peer answers, whatever it says."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = last_line((place.folder / "output").read_bytes())
            raise Unavailable(f"can't be started: it ended with {process.returncode}: {said}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{place.port}{path}", timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise Unavailable(f"can't be started: no answer within {_READY_SECONDS} s")


def _signal(pid: int, number: signal.Signals) -> None:
    """Stop a peer, or let it go on: some are busy also without calls, and would take of the others' core."""
    for each in tree(pid):
        os.kill(each, number)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a peer, and what it started: they are a group of their own."""
    if process.poll() is None:
        _signal(process.pid, signal.SIGCONT)
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(5)


def measure(rows: Sequence[Row], upstream: int, rounds: int, seconds: float) -> None:
    """Measure rows in turns, each on a core of its own; a row that fails is out of the later rounds."""
    lengths = [_WARM_SECONDS] * len(rows)
    for turn in range(rounds + 1):  # the first turn warms up
        for number, row in enumerate(rows):
            if row.way and not row.reason:
                found = _in_turn(row, row.way, upstream, lengths[number])
                if found and (turn or found.failed):
                    row.rounds.append(found)
                elif found:
                    lengths[number] = max(seconds, min(_LONGEST_SECONDS, _CALLS_EACH * found.p50 / 1e6))


def _in_turn(row: Row, way: Way, upstream: int, seconds: float) -> Round | None:
    if not row.language:  # ours, and nginx: they do nothing without calls
        return _measure(row, way, upstream, seconds)
    try:
        _signal(way.pids[0], signal.SIGCONT)
        time.sleep(_AWAKE_SECONDS)
        found = _measure(row, way, upstream, seconds)
        _signal(way.pids[0], signal.SIGSTOP)
    except OSError as error:
        row.reason = f"failed: {error}"
        return None
    return found


def _measure(row: Row, way: Way, upstream: int, seconds: float) -> Round | None:
    apart = built("upstream")  # a wrapped stdio server is the load's, not the way's
    load = Load(way.call(), CONNECTIONS, seconds, expected="lazy dog")
    try:
        pin(way.pids, {_CORE})
        pin([os.getpid(), upstream, *_wrapped(way, apart)], {_OTHER_CORE})
        found = run(way.port, load, way.pids, apart)
        row.memory = max(row.memory, proportional_memory(way.pids, apart))
    except subprocess.CalledProcessError as error:
        row.reason = f"failed: {last_line(error.stderr)}"
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        row.reason = f"failed: {error}"
        return None
    if found.failed:
        row.reason = f"{found.failed} wrong or failed answers, the first: {found.sample}"
    return found


def _wrapped(way: Way, apart: Path) -> list[int]:
    return [each for pid in way.pids for each in tree(pid) if runs(each, apart)]


def judge(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """How we stand to the fastest of each kind that answered rightly."""
    ours = next(row for row in rows if row.name == _OURS)

    def to_fastest(language: str) -> float | None:
        right = [row for row in rows if row.language == language and row.is_right]
        if not right or not ours.is_right:
            return None
        return ours.ratio(max(right, key=lambda row: row.middle("rate")))

    return {
        "to_envoy": goal(to_fastest("C++"), at_least=2.0),
        "to_fastest_node_peer": goal(to_fastest("Node"), at_least=15.0),
        "to_fastest_python_peer": goal(to_fastest("Python"), at_least=40.0),
    }
