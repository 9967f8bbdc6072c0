"""Programs that a bridge runs: how they begin, end and are kept within bounds."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.programs import processes as bridged
from gateway.programs.processes import Bridged, Busy, Program, Unknown
from gateway.protocol.messages import Reply, Request
from gateway.upstream.multiplexer import ChannelClosed
from tests.waiting import until

pytestmark = pytest.mark.anyio
ROOT = str(Path(__file__).parent.parent.parent)
OPENING = Request(0, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}})
DO = Request(1, "tools/call", {"name": "do"})


@asynccontextmanager
async def running(how: str, *, children: int = 4, limit: int = 1 << 20, idle: float = 60.0) -> AsyncIterator[Bridged]:
    programs = Bridged(children, limit, idle)
    programs.describe("key", Program("demo", sys.executable, ["-m", "tests.bad_program", how], {}, ROOT))
    try:
        yield programs
    finally:
        await programs.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def open_own(programs: Bridged) -> Any:
    session, answer = await programs.open("key", OPENING, shared=False)
    assert isinstance(answer, Reply)
    assert session is not None
    return session


async def test_a_program_that_hangs_at_first_is_ended_and_not_started_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bridged, "_HANDSHAKE_SECONDS", 0.5)
    started: list[int] = []
    start = bridged.Child.start

    async def starting(*arguments: Any, **how: Any) -> Any:
        child = await start(*arguments, **how)
        started.append(child.pid)
        return child

    monkeypatch.setattr(bridged.Child, "start", starting)
    async with running("hangs") as programs:
        with pytest.raises(Busy, match="did not shake hands"):
            await programs.open("key", OPENING, shared=False)
        assert not alive(started[0])
        with pytest.raises(Busy, match="did not shake hands"):
            await programs.open("key", OPENING, shared=False)
        assert len(started) == 1
        assert programs.children() == 0


async def test_the_pause_between_starts_grows() -> None:
    failures = bridged._Failures()
    pauses = []
    for _ in range(10):
        failures.ended("why")
        pauses.append(round(failures.due - time.monotonic()))
    assert pauses[0] == 1
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30


async def test_there_are_no_more_programs_than_may_be() -> None:
    async with running("garbage", children=2) as programs:
        first = await open_own(programs)
        await open_own(programs)
        with pytest.raises(Busy, match="GATEWAY_MAX_CHILDREN"):
            await programs.open("key", OPENING, shared=True)
        await programs.close_session(first.id)
        await programs.open("key", OPENING, shared=True)


async def test_idle_sessions_and_their_programs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridged, "_REAP_SECONDS", 0.05)
    async with running("garbage", idle=0.3) as programs:
        reaping = asyncio.create_task(programs.reap())
        session = await open_own(programs)
        await until(lambda: not alive(session.child.pid))
        with pytest.raises(Unknown):
            programs.session(session.id)
        reaping.cancel()
        await asyncio.gather(reaping, return_exceptions=True)


@pytest.mark.parametrize("id", [None, "", "nonsense"])
async def test_a_session_that_is_none_is_unknown(id: str | None) -> None:
    async with running("garbage") as programs:
        with pytest.raises(Unknown):
            programs.session(id)
        await programs.close_session(id)
    with pytest.raises(Unknown):
        await Bridged(1, 1, 1).open("no key", OPENING, shared=False)


async def test_stderr_is_logged_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.stdio")
    async with running("floods") as programs:
        session = await open_own(programs)
        async for message in session.request(DO):
            assert isinstance(message, Reply)
        await until(lambda: session.child.errors.words() == "line 19999")
    lines = [record for record in caplog.records if "stderr: line" in record.getMessage()]
    assert 1 <= len(lines) < 1000


async def test_a_line_without_end_ends_the_program(caplog: pytest.LogCaptureFixture) -> None:
    async with running("endless", limit=1 << 16) as programs:
        session = await open_own(programs)
        with pytest.raises(ChannelClosed, match="more than 65536 bytes"):
            async for _ in session.request(DO):
                pass
        await until(lambda: not alive(session.child.pid))


@pytest.mark.parametrize("how", ["garbage", "dies"])
async def test_programs_that_ended_leave_no_descriptor(how: str) -> None:
    async with running(how) as programs:
        counts = []
        for _ in range(6):
            session = await open_own(programs)
            with suppress(ChannelClosed):
                async for _message in session.request(DO):
                    pass
            await programs.close_session(session.id)
            programs._failures.clear()
            counts.append(len(os.listdir("/proc/self/fd")))
        assert counts[-1] <= counts[1], counts


async def test_a_program_that_closes_its_output_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridged, "_END_SECONDS", 0.3)
    async with running("closes") as programs:
        session = await open_own(programs)
        with pytest.raises(ChannelClosed, match="closed its output"):
            async for _ in session.request(DO):
                pass
        await until(lambda: not alive(session.child.pid))


async def test_a_program_inherits_its_pipes_and_nothing_else() -> None:
    async with running("descriptors") as programs:
        session = await open_own(programs)
        async for message in session.request(DO):
            assert isinstance(message, Reply)
            assert message.result["content"][0]["text"] == "[0, 1, 2]"


async def test_a_shared_program_that_is_used_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridged, "_REAP_SECONDS", 0.05)
    monkeypatch.setattr(bridged, "_SHARED_IDLE_SECONDS", 0.5)
    async with running("garbage") as programs:
        reaping = asyncio.create_task(programs.reap())
        session, _ = await programs.open("key", OPENING, shared=True)
        assert session is not None
        for number in range(10):
            async for _message in session.request(Request(number, "tools/call", {"name": "do"})):
                pass
            await asyncio.sleep(0.1)
        assert alive(session.child.pid)
        await until(lambda: not alive(session.child.pid))
        reaping.cancel()
        await asyncio.gather(reaping, return_exceptions=True)


async def test_what_nobody_runs_any_more_is_forgotten_with_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridged, "_REAP_SECONDS", 0.05)
    monkeypatch.setattr(bridged, "_SHARED_IDLE_SECONDS", 0.2)
    async with running("garbage", idle=0.2) as programs:
        secret = Program("demo", sys.executable, ["-m", "tests.bad_program", "garbage"], {"KEY": "secret"}, ROOT)
        programs.describe("key", secret)
        reaping = asyncio.create_task(programs.reap())
        await programs.open("key", OPENING, shared=True)
        await open_own(programs)
        await until(lambda: programs.children() == 0)
        await until(lambda: "secret" not in repr(vars(programs)) and not programs.keys())
        with pytest.raises(Unknown):
            await programs.open("key", OPENING, shared=True)
        programs.describe("key", secret)
        await programs.open("key", OPENING, shared=True)
        reaping.cancel()
        await asyncio.gather(reaping, return_exceptions=True)


NPM = """npm error code E404
npm error 404 Not Found - GET https://registry.example/@nobody%2fnothing - Not found
npm error 404
npm error 404  The requested resource '@nobody/nothing@*' could not be found or you do not have permission to access it.
npm error 404
npm error 404 Note that you can also install from a
npm error 404 tarball, folder, http url, or git folder.
npm notice New minor version of npm available! 10.1.0 -> 10.2.0
npm error A complete log of this run can be found in: /root/.npm/_logs/2026-11-24T10_00_00_000Z-debug-0.log"""
TRACEBACK = """Traceback (most recent call last):
  File "/srv/server.py", line 3, in <module>
    import nothing
ModuleNotFoundError: No module named 'nothing'"""


@pytest.mark.parametrize(
    ("said", "kept", "left_out"),
    [
        (NPM, ["E404", "@nobody%2fnothing"], ["complete log", "npm notice"]),
        (TRACEBACK, ["ModuleNotFoundError: No module named 'nothing'"], ["Traceback"]),
        (
            "loading environment\nusing example config\nentering main loop\nKeyError: 'TOKEN'\nbye",
            ["KeyError: 'TOKEN'", "bye"],
            ["environment", "example", "entering"],
        ),
        ("\n".join(f"error {number}" for number in range(9)), ["error 0", "error 7", "error 8"], ["error 3"]),
        ("\n".join(["e" * 4095 + "_"] * 40), [], []),
        ("\x1b]0;pwn\x07 fatal", ["fatal"], ["\x1b"]),
        ("one\ntwo\nthree", ["three"], ["one"]),
        ("x" * 5000 + "\n" + "error " * 500, ["error"], []),
        ("", [], []),
    ],
)
def test_of_a_programs_words_those_are_kept_that_say_something(said: str, kept: list[str], left_out: list[str]) -> None:
    lines = bridged._Lines("p", "stderr")
    for line in said.encode().splitlines():
        lines.line(line)
    words = lines.words()
    assert all(each in words for each in kept), words
    assert not any(each in words for each in left_out), words
    assert len(words) <= 600


async def test_a_program_that_can_not_start_has_one_reason_and_is_in_the_log_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bridged, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(bridged, "_MAX_PAUSE", 0.02)
    caplog.set_level(logging.INFO, "gateway.stdio")
    reasons = set()
    async with running("exits") as programs:
        for _ in range(4):
            with pytest.raises(Busy) as busy:
                await programs.open("key", OPENING, shared=True)
            reasons.add(str(busy.value))
            await asyncio.sleep(0.03)
    assert len(reasons) == 1
    assert "no licence found" in reasons.pop()
    assert sum("no licence found" in record.getMessage() for record in caplog.records) == 1


async def test_a_program_that_runs_after_all_is_in_the_log_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(bridged, "_FIRST_PAUSE", 0.01)
    caplog.set_level(logging.INFO, "gateway.stdio")
    flag = tmp_path / "flag"
    script = (
        "import os, runpy, sys\n"
        f"if not os.path.exists({str(flag)!r}): open({str(flag)!r}, 'w'); sys.exit('not yet')\n"
        "sys.argv = ['tests.bad_program', 'floods']; runpy.run_module('tests.bad_program', run_name='__main__')"
    )
    async with running("exits") as programs:
        programs.describe("key", Program("demo", sys.executable, ["-c", script], {}, ROOT))
        with pytest.raises(Busy, match=r"it ended \(exit code 1\): not yet"):
            await programs.open("key", OPENING, shared=True)
        await asyncio.sleep(0.05)
        session = await open_own(programs)
        async for _message in session.request(DO):
            pass
        await until(lambda: any("stderr: line" in record.getMessage() for record in caplog.records))


async def test_a_program_that_speaks_something_else_shows_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridged, "_HANDSHAKE_SECONDS", 0.5)
    async with running("exits") as programs:
        script = "import time; print('hello world', flush=True); time.sleep(600)"
        programs.describe("key", Program("demo", sys.executable, ["-c", script], {}, ROOT))
        with pytest.raises(Busy, match=r"did not shake hands .*wrote what is no MCP: hello world"):
            await programs.open("key", OPENING, shared=True)
        programs.describe("other", Program("demo", sys.executable, [], {}, "/no/such/folder"))
        with pytest.raises(Busy, match="its cwd '/no/such/folder' is no directory"):
            await programs.open("other", OPENING, shared=True)
