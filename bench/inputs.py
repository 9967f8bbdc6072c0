"""`make inputs`: what reading the worst JSON takes, beyond what orjson takes to read the same bytes.

Each shape is read in processes of its own, of 4 MiB (what a client may send) and of 16 MiB (what a server may). Bounds:
100 ms of CPU and 8 times the bytes in memory, both beyond `orjson.loads`; the exit code is 1 where one is passed.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from gateway.errors import GatewayError
from gateway.protocol import messages

_MAX_MS = 100.0
_MAX_TIMES = 8.0
_ROUNDS = 3
_NESTED = b"[" * 120 + b"]" * 120


@dataclass(frozen=True, slots=True)
class Cost:
    """What one reading took: ms of CPU beyond orjson's and in it, bytes of memory at its peak, what came of it."""

    ms: float
    orjson: float
    memory: int
    outcome: str


def _filled(size: int, one: bytes, first: bytes = b"") -> bytes:
    return b"[" + first + b",".join([one] * (size // (len(one) + 1))) + b"]"


def _call(value: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":' + value + b"}}"


def _result(value: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"result":{"x":' + value + b"}}"


def _keys(size: int) -> bytes:
    return b"{" + b",".join(b'"%x":1' % number for number in range(size // 10)) + b"}"


_DEEP = 3 * (_NESTED + b",")  # brackets enough that the depth is asked for
_STRING = b'"%b"'
SHAPES: dict[str, Callable[[int], bytes]] = {
    "batch of 1": lambda size: _filled(size, b"1"),
    "batch of {}": lambda size: _filled(size, b"{}"),
    "wide: numbers": lambda size: _call(_filled(size, b"1", _DEEP)),
    "wide: floats": lambda size: _call(_filled(size, b"1e9", _DEEP)),
    "wide: strings": lambda size: _call(_filled(size, b'""', _DEEP)),
    "wide: arrays": lambda size: _call(_filled(size, b"[]")),
    "wide: objects": lambda size: _call(_filled(size, b'{"a":1}')),
    "deep": lambda size: _call(_filled(size, b"[" * 240 + b"]" * 240)),
    "too deep": lambda size: _call(_filled(size, b"[" * 260 + b"]" * 260)),
    "many keys": lambda size: _call(_keys(size)),
    "escapes": lambda size: _call(_STRING % (b"\\u0001" * (size // 6))),
    "brackets in a string": lambda size: _call(_STRING % (b"[" * size)),
    "escapes before 20 digits": lambda size: _call(
        b"[" + _STRING % (b'\\\\\\"' * (size // 4) + b" 12345678901234567890123 ") + b"]"
    ),
    "integers of 18 digits": lambda size: _call(_filled(size, b"123456789012345678")),
    "integers of 19 digits": lambda size: _call(_filled(size, b"1234567890123456789")),
    "integers of -19 digits": lambda size: _call(_filled(size, b"-1234567890123456789")),
    "integers of 20 digits": lambda size: _call(_filled(size, b"12345678901234567890")),
    "floats of 23 digits": lambda size: _call(_filled(size, b"0.12345678901234567890123")),
    "one number": lambda size: _call(b"0." + b"1" * size),
    "23 digits in strings": lambda size: _call(_filled(size, b'"12345678901234567890123"')),
    "23 digits, spaced, in strings": lambda size: _call(_filled(size, b'" 12345678901234567890123 "')),
    "23 digits, spaced, in one string": lambda size: _call(_STRING % (b" 12345678901234567890123" * (size // 24))),
    "result: objects": lambda size: _result(_filled(size, b"{}")),
    "result: keys, then a key": lambda size: _result(_keys(size))[:-1] + b',"y":1}',
    "result: keys, then an object": lambda size: _result(_keys(size))[:-1] + b',"y":{}}',
    "result: with a line break": lambda size: _result(_filled(size, b"{}"))[:-1] + b"\n}",
}


def _plainly(body: bytes) -> None:
    messages.orjson.loads(body)


def _as_client(body: bytes) -> None:
    messages.decode(body, 100)


def _as_server(body: bytes) -> None:
    messages.decode_answer(body)


class _Timed:
    """Stands in for orjson: what the longest reading took, and what was read, so that freeing it is not counted."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._kept: list[object] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(orjson, name)

    def loads(self, body: bytes | memoryview) -> object:
        started = time.process_time()
        try:
            value = orjson.loads(body)
        finally:
            self.longest = max(self.longest, time.process_time() - started)
        self._kept.append(value)
        return value


def _read(shape: str, size: int, read: Callable[[bytes], None]) -> Cost:
    """Read one body in this process, which is new; several times, and the shortest time beyond orjson's counts."""
    body = SHAPES[shape](size)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as the workers have it
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before, memory, least, outcome = _memory("VmRSS"), 0, (math.inf, math.inf), "read"
    for _ in range(_ROUNDS):
        timed = _Timed()
        messages.orjson = timed  # type: ignore[assignment]
        started = time.process_time()
        try:
            read(body)
        except GatewayError as error:
            outcome = type(error).__name__
        beyond = time.process_time() - started - timed.longest
        memory = memory or _memory("VmHWM") - before
        least = min(least, (beyond, timed.longest))
    return Cost(1000 * least[0], 1000 * least[1], memory, outcome)


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    raise LookupError(field)


def main() -> int:
    """Print the table; 1 if a bound is passed."""
    table = Table("body", "shape", "orjson", "", "as a client's", "", "", "as a server's", "", "")
    passed = 0
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for size in (4 << 20, 16 << 20):
            for shape in SHAPES:
                plain, *others = (pool.apply(_read, (shape, size, each)) for each in (_plainly, _as_client, _as_server))
                row = [f"{size >> 20} MiB", shape, f"{plain.orjson:.0f} ms", f"{plain.memory / size:.1f} x"]
                for cost in others:
                    times = (cost.memory - plain.memory) / size
                    is_bounded = cost.ms <= _MAX_MS and times <= _MAX_TIMES
                    passed += not is_bounded
                    row += [f"{cost.ms:+.0f} ms", f"{times:+.1f} x", cost.outcome + ("" if is_bounded else " (!)")]
                table.add_row(*row)
    Console(width=160).print(table)
    return 1 if passed else 0


if __name__ == "__main__":
    sys.exit(main())
