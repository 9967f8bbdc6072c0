"""The stack as users run it: two replicas of two workers behind nginx, and what kills and signals do to it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fix_stack import KEY, Running, each_worker, free_ports, registered, wait_until

pytestmark = pytest.mark.system
ECHO = {"name": "stub.echo", "arguments": {"message": "hello"}}
Start = Callable[..., Running]


def judge(stack: Running) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.demo.validate"]
    return subprocess.run(command, env=stack.environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_validation_passes_twice_and_cleans_up(stack: Running) -> None:
    with stack.client() as client:
        before = client.get("/mcp/servers", headers={"accept": "application/json"}).json()["servers"]
        for _ in range(2):
            verdict = judge(stack)
            assert verdict.returncode == 0, verdict.stdout
            assert "12 of 12 passed" in verdict.stdout
        after = client.get("/mcp/servers", headers={"accept": "application/json"}).json()["servers"]
    assert [server["name"] for server in after] == [server["name"] for server in before]


def test_a_refused_key_is_one_line_and_not_eleven_failures(stack: Running) -> None:
    environment = stack.environment | {"GATEWAY_MASTER_KEY": "a-wrong-key"}
    command = [sys.executable, "-m", "gateway.demo.validate"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 1
    assert len(run.stdout.strip().splitlines()) == 1
    assert "refuses the key" in run.stdout


def test_with_its_url_alone_a_deployment_is_judged_as_one(stack: Running) -> None:
    known = {name: value for name, value in stack.environment.items() if not name.endswith("PORT")}
    environment = known | {"VALIDATE_URL": stack.url, "VALIDATE_STUB": stack.stub}
    command = [sys.executable, "-m", "gateway.demo.validate"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "12 of 12 passed" in run.stdout, run.stdout


@pytest.mark.parametrize(("path", "said"), [("", "There is no gateway"), ("/mcp/tools", "is no gateway")])
def test_the_validation_of_what_is_no_gateway_is_one_line(stack: Running, path: str, said: str) -> None:
    [port] = free_ports(1)
    url = stack.stub.removesuffix("/mcp") + path if path else f"http://localhost:{port}"
    command = [sys.executable, "-m", "gateway.demo.validate"]
    environment = stack.environment | {"VALIDATE_URL": url}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, len(run.stdout.strip().splitlines())) == (1, 1)
    assert said in run.stdout


def test_what_is_registered_through_nginx_is_callable_on_all_four_workers_at_once(stack: Running) -> None:
    with registered(stack, "fanned-out") as stored:
        assert stored["state"] == "ready"
        call = {"name": "fanned-out__stub.sum", "arguments": {"values": [1, 2]}}
        answers = each_worker(stack, lambda client: client.post("/mcp/tools/call", json=call))
        assert [answer.status_code for answer in answers.values()] == [200] * 4
        revisions = each_worker(stack, lambda client: client.get("/readyz").json()["revision"])
        assert len(set(revisions.values())) == 1


def test_progress_comes_through_nginx_while_the_call_runs(stack: Running) -> None:
    arrived: dict[str, float] = {}
    call = {"name": "slow-steps__stub.progress", "arguments": {"steps": 4, "seconds": 1.2}}
    with registered(stack, "slow-steps"), stack.client() as client:
        began = time.monotonic()
        with client.stream("POST", "/mcp/tools/call", json=call, headers={"accept": "text/event-stream"}) as answer:
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    arrived.setdefault(line.removeprefix("event: "), time.monotonic())
        whole = time.monotonic() - began
    assert arrived["result"] - arrived["progress"] > whole / 3


def test_metrics_are_those_of_all_workers_of_a_replica(stack: Running) -> None:
    def calls() -> list[int]:
        found = []
        for replica in stack.replicas:
            with stack.client(base_url=replica) as client:
                found.append(figure(client.get("/metrics").text, "gateway_call_seconds_count"))
        return found

    before: list[int] = []
    while before != (before := calls()):  # figures are counted a little later
        time.sleep(0.5)
    each_worker(stack, lambda client: client.post("/rpc", json={"jsonrpc": "2.0", "id": 1, "method": "ping"}))
    wait_until(lambda: [after - earlier for after, earlier in zip(calls(), before, strict=True)] == [2, 2])


@pytest.mark.parametrize("megabytes", [4.5, 6])
def test_a_large_body_is_refused_in_the_callers_protocol_by_whoever_sees_it_first(
    stack: Running, megabytes: float
) -> None:
    body = b"x" * int(megabytes * (1 << 20))
    with stack.client() as client:
        rest = client.post("/mcp/tools/call", content=body)
        assert (rest.status_code, rest.headers["content-type"]) == (413, "application/problem+json")
        rpc = client.post("/rpc", content=body)
        assert (rpc.status_code, rpc.json()["error"]["code"]) == (413, -32600)


def test_nginx_answers_in_the_protocol_of_the_address_when_no_replica_does(start_stack: Start) -> None:
    stack = start_stack()
    with stack.client() as client:
        client.post("/mcp/servers", json={"name": "stub", "url": stack.stub})
        codes: dict[str, Any] = {}

        def call() -> None:
            slow = {"name": "stub.slow", "arguments": {"seconds": 30}}
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": slow}
            codes["lost"] = client.post("/rpc", json=body)

        calling = threading.Thread(target=call)
        calling.start()
        wait_until(lambda: calls_in_flight(stack) > 0)
        tree = stack.tree()
        os.kill(tree[0], signal.SIGSTOP)  # it would end the rest
        for part in ("gateway serve", "gateway.run.worker"):
            for pid in (child for child in tree if part in command_line(child)):
                os.kill(pid, signal.SIGKILL)
        calling.join(30)
        lost = codes["lost"]
        assert (lost.status_code, lost.json()["error"]["code"]) == (502, -32053)
        assert "unknown" in lost.json()["error"]["message"]
        # a kept-alive connection may be found dead only by writing on it: that counts as sent
        wait_until(lambda: client.post("/mcp", json={}).json()["error"]["code"] == -32050)
        never_sent = client.post("/mcp", json={})
        assert (never_sent.status_code, never_sent.json()["error"]["code"]) == (502, -32050)
        rest = client.post("/mcp/tools/call", json=ECHO)
        assert (rest.status_code, rest.headers["content-type"]) == (502, "application/problem+json")
        assert "may be sent again" in rest.json()["detail"]
        os.kill(tree[0], signal.SIGCONT)


def test_a_killed_worker_is_replaced_while_the_others_serve_on(start_stack: Start) -> None:
    stack = start_stack()
    with stack.client() as client:
        client.post("/mcp/servers", json={"name": "stub", "url": stack.stub})
    before = stack.workers(stack.replicas[0])
    victim = next(
        child for child in stack.tree()
        if "gateway.run.worker" in command_line(child) and parent_port(child, stack) == stack.replicas[0]
    )  # fmt: skip
    failed, stop, made, cut = [], threading.Event(), [0], [0]

    def call_on() -> None:
        with stack.client() as client:
            while not stop.is_set():
                made[0] += 1
                try:
                    answer = client.post("/mcp/tools/call", json=ECHO)
                except httpx.RemoteProtocolError:  # killed between the head of its answer and the body
                    cut[0] += 1
                    continue
                if answer.status_code != 200:
                    failed.append(answer)

    calling = threading.Thread(target=call_on)
    calling.start()
    wait_until(lambda: made[0] > 20)
    os.kill(victim, signal.SIGKILL)
    after = made[0]
    wait_until(lambda: made[0] > after + 50)
    stop.set()
    calling.join(30)
    assert stack.workers(stack.replicas[0]).keys() == before.keys()
    assert len(failed) + cut[0] <= 1, "only the call that the dead worker was in the middle of may fail"
    assert all("nknown" in answer.json()["detail"] for answer in failed)


def test_after_kill_9_of_everything_the_next_start_heals_itself(start_stack: Start) -> None:
    stack = start_stack()
    with stack.client() as client:
        assert client.post("/mcp/servers", json={"name": "kept", "url": stack.stub}).status_code == 200
    for pid in stack.tree():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert stack.process is not None
    stack.process.wait(10)
    stack.start()
    with stack.client() as client:
        shown = client.get("/mcp/servers/kept").json()
        assert shown["counts"]["tools"] > 0
        answer = client.post("/mcp/tools/call", json={"name": "kept__stub.sum", "arguments": {"values": [40, 2]}})
        assert answer.json()["result"]["structuredContent"] == {"sum": 42}


def test_kill_9_of_the_parent_alone_leaves_nobody_behind(start_stack: Start) -> None:
    stack = start_stack()
    tree = stack.tree()
    assert stack.process is not None
    stack.process.kill()
    stack.process.wait(10)
    wait_until(lambda: not [pid for pid in tree if alive(pid)])


def test_sigterm_lets_the_running_call_finish_and_ends_streams(start_stack: Start) -> None:
    stack = start_stack()
    with stack.client() as client:
        client.post("/mcp/servers", json={"name": "stub", "url": stack.stub})
    tree = stack.tree()
    said: dict[str, Any] = {}

    def slow_call() -> None:
        with stack.client() as client:
            slow = {"name": "stub.slow", "arguments": {"seconds": 2}}
            said["call"] = client.post("/mcp/tools/call", json=slow)

    def watch() -> None:
        with (
            stack.client() as client,
            client.stream("GET", "/mcp/servers", headers={"accept": "text/event-stream"}) as answer,
        ):
            said["watching"] = True
            said["stream"] = "".join(answer.iter_text())

    threads = [threading.Thread(target=each) for each in (slow_call, watch)]
    for thread in threads:
        thread.start()
    wait_until(lambda: "watching" in said and calls_in_flight(stack) > 0)
    assert stack.process is not None
    stack.process.terminate()
    for thread in threads:
        thread.join(30)
    assert said["call"].status_code == 200
    assert said["stream"].startswith("event: servers")
    assert stack.process.wait(30) == 0
    wait_until(lambda: not [pid for pid in tree if alive(pid)])


def test_ctrl_c_ends_everything_with_exit_code_0(start_stack: Start) -> None:
    stack = start_stack("run")
    tree = stack.tree()
    assert len(tree) > 5
    assert stack.stop() == 0
    assert not [pid for pid in tree if alive(pid)]


def test_the_four_lines_that_are_printed_work_as_they_stand(start_stack: Start) -> None:
    stack = start_stack("run")
    lines = [line.strip() for line in stack.log.read_text().splitlines() if line.strip().startswith("curl ")]
    assert len(lines) == 4
    for line, expected in zip(lines, ["mine", "stub__stub.echo", "6", "event: result"], strict=True):
        run = subprocess.run(["sh", "-c", f"exec {line} -sS"], capture_output=True, text=True, timeout=30, check=True)
        assert expected in run.stdout


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"GATEWAY_PORT": "eighty"}, "GATEWAY_PORT"),
        ({"GATEWAY_MASTER_KEY": "sk-master-key-change-me", "GATEWAY_HOST": "0.0.0.0"}, "GATEWAY_MASTER_KEY"),
        ({}, "GATEWAY_MASTER_KEY"),
        (
            {"GATEWAY_MASTER_KEY": "long-enough", "DATABASE_URL": "postgresql://x", "REDIS_URL": "redis://x"},
            "GATEWAY_PORT",
        ),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(tmp_path: Path, changes: dict[str, str], named: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = {"PATH": os.environ["PATH"], "GATEWAY_DATA_DIR": str(tmp_path)}
        environment["GATEWAY_PORT"] = str(taken.getsockname()[1])
        run = subprocess.run(
            [sys.executable, "-m", "gateway", "serve"],
            env=environment | changes, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert run.returncode == 2
    assert named in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"DATABASE_URL": "foo", "REDIS_URL": "redis://x"}, "DATABASE_URL"),
        ({"GATEWAY_DATA_DIR": "/proc/nope"}, "GATEWAY_DATA_DIR"),
    ],
)
def test_stores_that_can_not_be_had_stop_the_start_with_one_line(changes: dict[str, str], named: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "GATEWAY_MASTER_KEY": "long-enough",
        "GATEWAY_PORT": str(free_ports(1)[0]),
    }
    run = subprocess.run(
        [sys.executable, "-m", "gateway", "serve"],
        env=environment | changes, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (run.returncode, len(run.stderr.strip().splitlines())) == (2, 1)
    assert named in run.stderr


def test_a_second_stack_on_the_same_ports_or_data_says_so_and_touches_nothing(stack: Running) -> None:
    for changes, named in (
        ({}, "GATEWAY_STUB_PORT"),
        (dict(zip(("GATEWAY_STUB_PORT", "GATEWAY_PORT"), map(str, free_ports(2)), strict=True)), "GATEWAY_DATA_DIR"),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "gateway", "run"],
            env=stack.environment | changes, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert (run.returncode, len(run.stderr.strip().splitlines())) == (2, 1)
        assert named in run.stderr
    with stack.client() as client:
        assert client.get("/readyz").status_code == 200


def test_the_plain_hypercorn_command_serves_too(stack: Running, tmp_path: Path) -> None:
    state = json.loads((Path(stack.environment["GATEWAY_DATA_DIR"]) / "state.json").read_text())
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    environment = stack.environment | {
        "DATABASE_URL": state["database_url"], "REDIS_URL": state["redis_url"], "GATEWAY_MASTER_KEY": KEY,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "hypercorn", "gateway.asgi:app", "-b", f"127.0.0.1:{port}", "-k", "uvloop"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: status(f"http://127.0.0.1:{port}/readyz") == 200)
    finally:
        process.terminate()
        process.wait(30)


def status(url: str) -> int:
    try:
        return httpx.get(url, trust_env=False).status_code
    except httpx.TransportError:
        return 0


def calls_in_flight(stack: Running) -> int:
    """Requests that the gateway's workers are answering now."""
    total = 0
    for replica in stack.replicas:
        with stack.client(base_url=replica) as client:
            total += figure(client.get("/metrics").text, "gateway_in_flight")
    return total


def figure(text: str, name: str) -> int:
    return sum(int(float(line.rpartition(" ")[2])) for line in text.splitlines() if line.startswith(f"{name}{{"))


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def parent_port(pid: int, stack: Running) -> str:
    """The address of the replica that a worker belongs to."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    port = next(each.partition("=")[2] for each in environment if each.startswith("GATEWAY_PORT="))
    return next(replica for replica in stack.replicas if replica.endswith(f":{port}"))


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_mounted_below_a_prefix_the_12_cases_pass_there(stack: Running) -> None:
    state = json.loads((Path(stack.environment["GATEWAY_DATA_DIR"]) / "state.json").read_text())
    port = free_ports(1)[0]
    environment = stack.environment | {
        "DATABASE_URL": state["database_url"], "REDIS_URL": state["redis_url"], "GATEWAY_MASTER_KEY": KEY,
        "GATEWAY_ALLOW_PRIVATE_UPSTREAMS": "true",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "hypercorn", "tests.system.host_app:app", "-b", f"127.0.0.1:{port}", "-k", "uvloop"],
        cwd=Path(__file__).parent.parent.parent, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    mounted = f"http://localhost:{port}/tools/gateway"
    try:
        wait_until(lambda: status(f"{mounted}/readyz") == 200)
        judged = environment | {"VALIDATE_URL": mounted, "VALIDATE_REPLICAS": mounted, "VALIDATE_STUB": stack.stub}
        command = [sys.executable, "-m", "gateway.demo.validate"]
        verdict = subprocess.run(command, env=judged, capture_output=True, text=True, timeout=120, check=False)
        assert "12 of 12 passed" in verdict.stdout, verdict.stdout
    finally:
        process.terminate()
        process.wait(30)
