"""One measurement: a load on a port for some seconds, from the compiled generator, with the CPU that it took there."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import cpu_seconds
from bench.native import built

NUMBER = "##########"
"""In a request, the place of its number."""


@dataclass(frozen=True)
class Load:
    """What is sent, and what must come back; `rate` 0 for the closed loop, else calls a second."""

    request: bytes
    connections: int
    seconds: float
    rate: float = 0.0
    least: int = 0
    expected: str = ""


@dataclass(frozen=True)
class Round:
    """What one run of the generator saw; latencies in microseconds, CPU of the measured processes in seconds.

    `calls` were answered within `seconds`; `done` counts also those that were answered after it.
    """

    seconds: float
    calls: int
    done: int
    failed: int
    unsent: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    generator_cpu: float
    cpu: float
    sample: str

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu / max(1, self.done) * 1e6


@dataclass
class Row:
    """The rounds of one way under one load."""

    way: str
    what: str
    connections: int
    rounds: list[Round] = field(default_factory=list)

    def ratio(self, other: Row, name: str = "rate") -> float:
        """This row to another, round by round, since a noisy machine is noisy for both: the median."""
        pairs = zip(self.rounds, other.rounds, strict=False)
        return float(
            statistics.median(getattr(ours, name) / max(getattr(theirs, name), 1e-9) for ours, theirs in pairs)
        )

    def above(self, other: Row, name: str) -> float:
        """How much more this row has than another, round by round: the median."""
        pairs = zip(self.rounds, other.rounds, strict=False)
        return float(statistics.median(getattr(ours, name) - getattr(theirs, name) for ours, theirs in pairs))

    def middle(self, name: str) -> float:
        return float(statistics.median(getattr(each, name) for each in self.rounds))

    @property
    def failed(self) -> int:
        return sum(each.failed for each in self.rounds)

    def as_json(self) -> dict[str, Any]:
        rates = [each.rate for each in self.rounds]
        return {
            "way": self.way,
            "what": self.what,
            "connections": self.connections,
            "calls_per_second": round(self.middle("rate"), 1),
            "spread": [round(min(rates), 1), round(max(rates), 1)],
            "cpu_us_per_call": round(self.middle("cpu_us"), 1),
            **{f"{name}_us": round(self.middle(name), 1) for name in ("p50", "p90", "p99", "p999", "max")},
            "generator_cpu_share": round(statistics.median(r.generator_cpu / r.seconds for r in self.rounds), 2),
            "failed": self.failed,
            "unsent": sum(each.unsent for each in self.rounds),
        }


def run(port: int, load: Load, pids: list[int], apart: Path | None = None) -> Round:
    """Put a load on a port; `pids` are the processes whose CPU is counted, without the program `apart` below them."""
    with tempfile.NamedTemporaryFile(prefix="bench-request-") as file:
        file.write(load.request)
        file.flush()
        before = cpu_seconds(pids, apart)
        command = [built("load"), port, file.name, load.connections, load.seconds, load.rate, load.least, load.expected]
        done = subprocess.run(
            [str(each) for each in command], check=True, capture_output=True, timeout=load.seconds + 60
        )
        used = cpu_seconds(pids, apart) - before
    said = json.loads(done.stdout)
    return Round(generator_cpu=said.pop("cpu"), cpu=used, **said)


def http(port: int, path: str, value: object, headers: dict[str, str]) -> bytes:
    """A whole POST request; its id is an integer, as the SDKs' are."""
    body = json.dumps(value, separators=(",", ":")).replace(f'"id":"{NUMBER}"', f'"id":{NUMBER}').encode()
    fixed = {"host": f"127.0.0.1:{port}", "content-type": "application/json", "content-length": str(len(body))}
    lines = "".join(f"{name}: {text}\r\n" for name, text in (fixed | headers).items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body
