"""Lines of calls: who has them when, what they say, and what happens while nobody reads them."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from gateway.observability import logs
from gateway.observability.call_log import CallLog, Reached
from gateway.observability.metrics import Metrics
from gateway.tasks import end
from tests.waiting import until

pytestmark = pytest.mark.anyio


@dataclass
class _Named:
    name: str = "master"


@dataclass
class _Request:
    method: str = "tools/call"


def reached() -> Reached:
    found = Reached()
    found.named, found.tool, found.server, found.seconds = "a", "b c", "a", 0.25
    return found


@dataclass
class _Call:
    principal: _Named = field(default_factory=_Named)
    request: _Request = field(default_factory=_Request)
    server: str | None = None
    request_id: str = "r1"
    reached: Reached = field(default_factory=reached)


@contextmanager
def configured(form: str) -> Iterator[io.StringIO]:
    """Where lines go in a process that we configured to log; nobody else's handlers (pytest's) are there."""
    root, written = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    formatter = logs.JsonFormatter({"worker": "w"}) if form == "json" else logs.TextFormatter({"worker": "w"})
    root.handlers[:] = [logs.LineHandler(written, formatter)]
    root.setLevel(logging.INFO)
    try:
        yield written
    finally:
        root.handlers[:] = before
        root.setLevel(level)


async def test_lines_are_formatted_faster_than_a_busy_loop_brings_them() -> None:
    """In each turn of the loop sixteen calls come to their end, as under a load of thirty-two callers."""
    with configured("text") as written:
        log = CallLog(Metrics("r"), ["tools/call"])
        running = asyncio.create_task(log.run())
        for _ in range(2000):
            log.write(_Call(), 1.0, "a__b c", "ok", 0.5, 10)
        await until(lambda: len(log._waiting) < 2000)
        for _ in range(100):
            for _ in range(16):
                log.write(_Call(), 1.0, "a__b c", "ok", 0.5, 10)
            await asyncio.sleep(0)
        assert len(log._waiting) < 2000
        await until(lambda: written.getvalue().count("\n") >= 2000)
        await end([running])


@pytest.mark.parametrize("form", ["json", "text"])
async def test_lines_come_together_a_little_later_and_say_what_a_record_would(form: str) -> None:
    with configured(form) as written:
        log = CallLog(Metrics("r"), ["tools/call"])
        running = asyncio.create_task(log.run())
        for _ in range(50):
            log.write(_Call(), 1.0, "a__b c", "ok", 0.5, 10)
        assert written.getvalue() == ""
        await until(lambda: written.getvalue().count("\n") == 50)
        await end([running])
    line = written.getvalue().split("\n")[0]
    if form == "json":
        assert json.loads(line) | {"time": ""} == {
            "time": "", "level": "info", "logger": "gateway.calls", "message": "call", "worker": "w",
            "principal": "master", "method": "tools/call", "server": "a", "name": "a__b c", "outcome": "ok",
            "ms": 250.0, "upstream_ms": 250.0, "bytes": 10, "request_id": "r1",
        }  # fmt: skip
    else:
        assert line.endswith(
            ' w INFO gateway.calls: call principal=master method=tools/call server=a name="a__b c" outcome=ok '
            "ms=250.0 upstream_ms=250.0 bytes=10 request_id=r1"
        )


async def test_what_waits_is_written_at_the_end() -> None:
    with configured("text") as written:
        log = CallLog(Metrics("r"), ["tools/call"])
        running = asyncio.create_task(log.run())
        await asyncio.sleep(0)
        log.write(_Call(), 1.0, "a__b c", "ok", 0.5, 10)
        await end([running])
    assert written.getvalue().count("\n") == 1


async def test_lines_that_nobody_reads_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.observability.call_log._MAX_WAITING", 3)
    with configured("text") as written:
        log = CallLog(Metrics("r"), ["tools/call"])
        for _ in range(5):
            log.write(_Call(), 1.0, "a__b c", "ok", 0.5, 10)
        running = asyncio.create_task(log.run())
        await until(lambda: "2 lines of calls were dropped" in written.getvalue())
        await end([running])
    assert written.getvalue().count(" call ") == 3


@pytest.mark.parametrize(("which", "lines"), [("all", 2), ("errors", 1), ("none", 0)])
async def test_which_calls_have_a_line_is_chosen_and_figures_count_all(
    which: str, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway.calls")
    metrics = Metrics("r")
    log = CallLog(metrics, ["tools/call"], which)
    log.write(_Call(), 1.0, "a__b c", "ok", 0.5, 10)
    log.write(_Call(), 1.0, "a__b c", "-32602", 0.5, 10)
    assert len([record for record in caplog.records if record.name == "gateway.calls"]) == lines
    shown = metrics.exposition().decode()
    assert 'gateway_calls_total{method="tools/call",outcome="ok",replica="r"} 1.0' in shown
    assert 'gateway_call_seconds_count{method="tools/call",replica="r"} 2.0' in shown
    assert 'gateway_call_seconds_bucket{le="0.5",method="tools/call",replica="r"} 2.0' in shown
    assert 'gateway_upstream_seconds_sum{method="tools/call",replica="r"} 0.5' in shown


async def test_a_large_name_is_cut_before_it_waits() -> None:
    with configured("text"):
        log = CallLog(Metrics("r"), ["tools/call"])
        log.write(_Call(), 1.0, "x" * 1_000_000, "ok", 0.5, 10)
        log.write(_Call(), 1.0, None, "ok", 0.5, 10)
    assert [entry[4] for entry in log._waiting] == ["x" * 128, None]


async def test_lines_that_are_half_formatted_at_the_end_are_not_lost() -> None:
    with configured("text") as written:
        log = CallLog(Metrics("r"), ["tools/call"])
        for _ in range(100):
            log.write(_Call(), 1.0, "a__b c", "ok", 0.5, 10)
        flushing = asyncio.create_task(log.run())
        async with asyncio.timeout(5):
            while not 0 < len(log._waiting) < 100:  # noqa: ASYNC110  # the very turn of the loop matters
                await asyncio.sleep(0)
        await end([flushing])
    assert written.getvalue().count(" call ") == 100
