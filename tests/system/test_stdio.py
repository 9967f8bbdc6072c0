"""Servers that are programs: run by a bridge, reached from workers on this and on another machine."""

import asyncio
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.asgi import Client
from tests.fix_gateway import Open
from tests.fix_stack import Running
from tests.talk import BOTH, OWN, STREAM, call, initialize, next_message, request, tell
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.system]
ROOT = str(Path(__file__).parent.parent.parent)
EVERYTHING = {"transport_type": "stdio", "command": sys.executable, "args": ["-m", "tests.everything", "stdio"]}


def bad(how: str, **more: Any) -> dict[str, Any]:
    return {
        "transport_type": "stdio", "command": sys.executable, "args": ["-m", "tests.bad_program", how],
        "cwd": ROOT, **more,
    }  # fmt: skip


def text(answer: Any) -> str:
    found: str = answer["result"]["content"][0]["text"]
    return found


async def register(worker: Client, spec: dict[str, Any], state: str = "ready") -> Any:
    await worker.ask("PUT", "/mcp/servers/demo", value=spec)
    status, _, stored = await worker.ask("POST", "/mcp/servers/demo/refresh")
    assert (status, stored["state"]) == (200, state), stored
    return stored


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


async def test_each_session_has_a_program_of_its_own_on_either_machine(
    with_bridges: tuple[Client, Client],
) -> None:
    stored = await register(with_bridges[0], {**EVERYTHING, "cwd": ROOT})
    assert stored["counts"]["tools"] > 20
    assert "url" not in stored
    sessions = [await initialize(with_bridges[0]) for _ in range(2)]
    pids = []
    for session in sessions:
        answers = [await call(worker, session, "pid") for worker in (*with_bridges, *with_bridges)]
        assert len({text(answer) for answer in answers}) == 1
        pids.append(int(text(answers[0])))
    assert len(set(pids)) == 2
    assert (await with_bridges[1].ask("DELETE", OWN, headers=sessions[0]))[0] == 204
    await until(lambda: not runs(pids[0]))
    assert runs(pids[1])
    await with_bridges[1].ask("DELETE", OWN, headers=sessions[1])
    await until(lambda: not runs(pids[1]))


@pytest.mark.parametrize("asked_at", [0, 1])
async def test_progress_questions_and_updates_come_through(with_bridges: tuple[Client, Client], asked_at: int) -> None:
    await register(with_bridges[0], {**EVERYTHING, "cwd": ROOT})
    session = await initialize(with_bridges[0])
    await call(with_bridges[0], session, "test_simple_text")
    here, there = with_bridges[asked_at], with_bridges[1 - asked_at]
    body = request("tools/call", 3, name="count", arguments={"key": "k"}, _meta={"progressToken": "t"})
    async with here.open("POST", OWN, value=body, headers=session) as stream:
        messages = [json.loads(event.data) for event in await stream.events()]
    assert [each["params"]["progress"] for each in messages[:-1]] == [1, 2, 3, 4, 5]
    body = request("tools/call", 4, name="test_sampling", arguments={"prompt": "hello"})
    async with here.open("POST", OWN, value=body, headers=session) as stream:
        question = await next_message(stream)
        result = {"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m"}
        assert (await tell(there, session, {"id": question["id"], "result": result}))[0] == 202
        assert text(await next_message(stream)) == "LLM response: hi"
    await here.ask("POST", OWN, value=request("resources/subscribe", uri="test://watched-resource"), headers=session)
    async with here.open("GET", OWN, headers={**session, **STREAM}) as stream:
        hearing = asyncio.create_task(next_message(stream))
        async with asyncio.timeout(15):
            while not hearing.done():
                await call(there, session, "touch")
                await asyncio.sleep(0.2)
        assert (await hearing)["params"] == {"uri": "test://watched-resource"}


async def test_callers_without_a_session_share_one_program(with_bridges: tuple[Client, Client]) -> None:
    await register(with_bridges[0], {**EVERYTHING, "cwd": ROOT})

    async def ask() -> str:
        _, _, answer = await with_bridges[0].ask("POST", "/mcp/tools/call", value={"name": "demo__pid"})
        return text(answer)

    pids = await asyncio.gather(*(ask() for _ in range(10)))
    assert len(set(pids)) == 1
    headers = {"accept": "text/event-stream"}
    value = {"name": "demo__count", "arguments": {"key": "rest"}}
    async with with_bridges[0].open("POST", "/mcp/tools/call", value=value, headers=headers) as stream:
        assert [event.name for event in await stream.events()] == ["progress"] * 5 + ["result"]


async def test_a_program_gets_nothing_of_the_gateways_own_environment(with_bridges: tuple[Client, Client]) -> None:
    stored = await register(with_bridges[0], bad("environment", env={"MINE": "secret; echo $HOME"}))
    assert stored["env"] == {"MINE": "[redacted]"}
    _, _, answer = await with_bridges[0].ask("POST", "/mcp/tools/call", value={"name": "do"})
    names, folder, arguments = json.loads(text(answer))
    assert (names, folder, arguments[1:]) == (["MINE"], ROOT, ["environment"])
    status, _, again = await with_bridges[0].ask("PUT", "/mcp/servers/demo", value=stored)
    assert status == 200, again


@pytest.mark.parametrize("how", ["garbage", "floods"])
async def test_garbage_and_floods_do_no_harm(with_bridges: tuple[Client, Client], how: str) -> None:
    await register(with_bridges[0], bad(how))
    session = await initialize(with_bridges[0])
    for worker in with_bridges:
        assert text(await call(worker, session, "do")).isdigit()


@pytest.mark.parametrize("how", ["dies", "endless"])
async def test_a_program_that_ends_in_a_call_leaves_the_outcome_unknown_and_runs_again(
    with_bridges: tuple[Client, Client], how: str
) -> None:
    await register(with_bridges[0], bad(how))
    session = await initialize(with_bridges[0])
    for worker in with_bridges:
        answer = await call(worker, session, "do")
        assert answer["error"]["code"] == -32053, answer
        await asyncio.sleep(0.1)
        assert "result" in (await worker.ask("POST", OWN, value=request("tools/list"), headers=session))[2]


async def test_a_program_that_exits_says_why_and_is_not_started_over_and_over(
    with_bridges: tuple[Client, Client],
) -> None:
    stored = await register(with_bridges[0], bad("exits"), "unreachable")
    assert "exit code 3" in stored["reason"]
    assert "no licence found" in stored["reason"]


async def test_a_command_that_is_none_says_so(with_bridges: tuple[Client, Client]) -> None:
    stored = await register(with_bridges[0], {"transport_type": "stdio", "command": "/no/such thing"}, "unreachable")
    assert "No such file" in stored["reason"]


async def test_a_program_that_ignores_its_end_is_killed(with_bridges: tuple[Client, Client]) -> None:
    await register(with_bridges[0], bad("stubborn"))
    session = await initialize(with_bridges[0])
    pid = int(text(await call(with_bridges[0], session, "do")))
    await with_bridges[0].ask("DELETE", OWN, headers=session)
    await until(lambda: not runs(pid))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"transport_type": "stdio"}, "command"),
        ({"transport_type": "stdio", "command": ""}, "command"),
        ({"transport_type": "stdio", "command": ["sh", "-c"]}, "command"),
        ({"transport_type": "stdio", "command": "x", "url": "http://a.test/"}, "url"),
        ({"transport_type": "stdio", "command": "x", "headers": {"a": "b"}}, "headers"),
        ({"transport_type": "stdio", "command": "x", "args": "a b"}, "args"),
        ({"transport_type": "stdio", "command": "x", "args": ["a\0b"]}, "args"),
        ({"transport_type": "stdio", "command": "x", "env": {"A=B": "c"}}, "env"),
        ({"transport_type": "stdio", "command": "x", "env": {"A": 1}}, "env.A"),
        ({"transport_type": "stdio", "command": "x", "env": {"A": "[redacted]"}}, "env.A"),
        ({"transport_type": "stdio", "command": "x", "cwd": "relative"}, "cwd"),
        ({"url": "http://a.test/", "command": "x"}, "command"),
    ],
)
async def test_what_is_no_program_is_refused(open_app: Open, spec: dict[str, Any], field: str) -> None:
    async with open_app(allow_stdio=True) as (_, client):
        status, _, answer = await client.ask("PUT", "/mcp/servers/demo", value=spec)
        assert (status, answer.get("field")) == (422, field), answer


async def test_programs_need_the_operators_consent(open_app: Open) -> None:
    async with open_app() as (_, client):
        status, _, answer = await client.ask("PUT", "/mcp/servers/demo", value=EVERYTHING)
        assert status == 403
        assert "GATEWAY_ALLOW_STDIO" in answer["detail"]


def test_only_its_user_reaches_the_bridge(bridges: tuple[str, str]) -> None:
    for path in bridges:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def programs(running: Running) -> list[int]:
    """The pids of the everything servers that run below a stack."""
    return [
        pid for pid in running.tree() if b"tests.everything" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]  # fmt: skip


def ask_over_http(client: httpx.Client, session: dict[str, str], name: str) -> Any:
    answer = client.post(OWN, json=request("tools/call", name=name), headers=session)
    if answer.headers["content-type"] == "application/json":
        return answer.json()
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")][-1]


@pytest.mark.parametrize("how", ["stop", "kill -9"])
def test_under_serve_each_replica_has_a_bridge_and_leaves_no_program_behind(
    start_stack: Callable[..., Running], how: str
) -> None:
    running = start_stack("ha", GATEWAY_ALLOW_STDIO="true")
    with running.client() as client:
        spec = {**EVERYTHING, "cwd": ROOT}
        client.put("/mcp/servers/demo", json=spec).raise_for_status()
        assert client.post("/mcp/servers/demo/refresh").json()["state"] == "ready"
        opening = request("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={})
        answer = client.post(OWN, json=opening, headers=BOTH)
        session = {**BOTH, "mcp-session-id": answer.headers["mcp-session-id"]}
        pids = {text(ask_over_http(client, session, "pid")) for _ in range(8)}
        assert len(pids) == 1
        os.kill(int(pids.pop()), signal.SIGKILL)  # its own program dies: a new one is run for the session
        deadline = time.monotonic() + 20
        while "result" not in (answer := ask_over_http(client, session, "pid")):
            assert answer["error"]["code"] in (-32053, -32050), answer
            assert time.monotonic() < deadline
            time.sleep(0.2)
    left = programs(running)
    assert left
    if how == "stop":
        assert running.stop() == 0
    else:
        assert running.process is not None
        for pid in running.tree():
            if pid != running.process.pid and pid not in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        running.process.kill()
        running.process.wait(10)
        running.process = None
    deadline = time.monotonic() + 20
    while any(runs(pid) for pid in left):
        assert time.monotonic() < deadline, "a program was left behind"
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["removed", "disabled", "another"])
async def test_what_sessions_run_of_a_server_that_is_gone_is_ended(
    with_bridges: tuple[Client, Client], how: str
) -> None:
    await register(with_bridges[0], {**EVERYTHING, "cwd": ROOT})
    sessions = [await initialize(each) for each in with_bridges]
    pids = [
        int(text(await call(worker, session, "pid"))) for worker, session in zip(with_bridges, sessions, strict=True)
    ]
    assert all(runs(pid) for pid in pids)
    if how == "removed":
        await with_bridges[0].ask("DELETE", "/mcp/servers/demo")
    elif how == "disabled":
        await with_bridges[0].ask("PATCH", "/mcp/servers/demo", value={"enabled": False})
    else:
        await with_bridges[0].ask("PATCH", "/mcp/servers/demo", value={"env": {"OTHER": "1"}})
    await until(lambda: not any(runs(pid) for pid in pids))
