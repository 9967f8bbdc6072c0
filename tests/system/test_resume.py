"""Streams that are cut, over real sockets: resumed at the other replica, also when the first one was killed."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.protocol.sse import ServerSentEvent, SseDecoder
from tests.fix_stack import Running, registered
from tests.talk import BOTH, request

pytestmark = pytest.mark.system
STEPS = 6
STREAM = {"accept": "text/event-stream"}


def open_session(client: httpx.Client, path: str, version: str = "2025-11-25") -> dict[str, str]:
    info = {"name": "t", "version": "1"}
    opening = request("initialize", protocolVersion=version, capabilities={}, clientInfo=info)
    answer = client.post(path, json=opening, headers=BOTH)
    assert answer.status_code == 200, answer.text
    return {**BOTH, "mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": version}


def events(answer: httpx.Response) -> Iterator[ServerSentEvent]:
    decoder = SseDecoder()
    for chunk in answer.iter_raw():
        yield from decoder.feed(chunk)


def take(answer: httpx.Response, count: int) -> list[ServerSentEvent]:
    """So many events, the priming one included, and not one more."""
    found: list[ServerSentEvent] = []
    for event in events(answer):
        found.append(event)
        if len(found) >= count:
            break
    return found[:count]


def tally(client: httpx.Client, path: str, session: dict[str, str], name: str, key: str) -> str:
    body = request("tools/call", 99, name=name, arguments={"key": key})
    answer = client.post(path, json=body, headers=session)
    [last] = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")][-1:] or [
        answer.json()
    ]
    return str(last["result"]["content"][0]["text"])


@contextmanager
def counting(
    client: httpx.Client, path: str, session: dict[str, str], name: str, key: str, pause: float
) -> Iterator[httpx.Response]:
    arguments = {"key": key, "steps": STEPS, "pause": pause}
    body = request("tools/call", 7, name=name, arguments=arguments, _meta={"progressToken": "p"})
    with client.stream("POST", path, json=body, headers=session) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        yield answer


@pytest.mark.parametrize("address", ["/mcp", "/mcp/servers/counts/mcp"])
@pytest.mark.parametrize("cut", range(1, STEPS + 3))
def test_a_call_cut_at_any_event_goes_on_at_the_other_replica(
    stack: Running, upstreams: dict[str, str], address: str, cut: int
) -> None:
    name = "count" if "servers" in address else "counts__count"
    key = f"{address} {cut}"
    with (
        registered(stack, "counts", url=upstreams["streamable_http"]),
        stack.client(base_url=stack.replicas[0]) as first,
        stack.client(base_url=stack.replicas[1]) as second,
    ):
        session = open_session(first, address)
        with counting(first, address, session, name, key, 0.05) as answer:
            seen = take(answer, cut)
        assert seen[0].data == b"", "the first event is the priming one"
        last = seen[-1].id
        assert last is not None
        with second.stream("GET", address, headers={**session, **STREAM, "last-event-id": last}) as answer:
            assert answer.status_code == 200, answer.read()
            seen += list(events(answer))
        assert len({event.id for event in seen}) == len(seen)
        messages = [json.loads(event.data) for event in seen if event.data]
        assert [each["params"]["progress"] for each in messages[:-1]] == list(range(1, STEPS + 1))
        assert (messages[-1]["id"], messages[-1]["result"]["content"][0]["text"]) == (7, "called 1 times")
        asking = "tally" if "servers" in address else "counts__tally"
        assert tally(second, address, session, asking, key) == "1"


def worker_of(running: Running, replica: str) -> list[int]:
    """The pids of a replica's workers."""
    port = replica.rpartition(":")[2].encode()
    found = []
    for pid in running.tree():
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        if b"gateway.run.worker" in command and b"GATEWAY_PORT=" + port + b"\0" in environment:
            found.append(pid)
    return found


def test_when_a_worker_is_killed_only_its_calls_are_lost_and_say_so(
    start_stack: Callable[..., Running], upstreams: dict[str, str]
) -> None:
    running = start_stack("ha", GATEWAY_WORKERS="1")
    path = "/mcp/servers/counts/mcp"
    with (
        registered(running, "counts", url=upstreams["streamable_http"]),
        running.client(base_url=running.replicas[0]) as first,
        running.client(base_url=running.replicas[1]) as second,
    ):
        session, other = open_session(first, path), open_session(first, path)
        assert tally(first, path, other, "tally", "other") == "0"
        with counting(second, path, other, "count", "safe", 0.5) as safe:
            with counting(first, path, session, "count", "lost", 0.5) as answer:
                coming = events(answer)
                seen = [next(coming) for _ in range(3)]
                time.sleep(0.2)  # recording trails sending
                [pid] = worker_of(running, running.replicas[0])
                os.kill(pid, signal.SIGKILL)
                began = time.monotonic()
                with pytest.raises(httpx.HTTPError):
                    list(coming)
            last = seen[-1].id or ""
            with second.stream("GET", path, headers={**session, **STREAM, "last-event-id": last}) as resumed:
                rest = [json.loads(event.data) for event in events(resumed) if event.data]
            assert (rest[-1]["id"], rest[-1]["error"]["code"]) == (7, -32053)
            assert "unknown" in rest[-1]["error"]["message"].lower()
            assert time.monotonic() - began < 30
            assert tally(second, path, session, "tally", "lost") == "1", "the session goes on, and nothing was repeated"
            messages: list[Any] = [json.loads(event.data) for event in events(safe) if event.data]
        assert messages[-1]["result"]["content"][0]["text"] == "called 1 times"


def test_a_client_without_event_ids_hears_of_a_killed_worker_from_the_load_balancer(
    start_stack: Callable[..., Running], upstreams: dict[str, str]
) -> None:
    running = start_stack("ha", GATEWAY_WORKERS="1")
    with registered(running, "counts", url=upstreams["streamable_http"]), running.client() as client:
        session = open_session(client, "/mcp")
        body = request("tools/call", 7, name="counts__hang")
        workers = [pid for replica in running.replicas for pid in worker_of(running, replica)]
        assert len(workers) == 2

        def kill() -> None:
            for pid in workers:
                os.kill(pid, signal.SIGKILL)

        killing = threading.Timer(1.5, kill)
        killing.start()
        answer = client.post("/mcp", json=body, headers={**session, "accept": "application/json"})
        killing.join()
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == -32053
        deadline = time.monotonic() + 30
        while client.post("/mcp", json=request("ping"), headers=session).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
