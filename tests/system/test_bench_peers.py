"""The bench of peers: one that is broken, in whatever way, is a row that says why, and the others go on."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench.load import Load, Round, http, run
from bench.machine import free_port, pin, start
from bench.native import built
from bench.peers.install import Package, Unavailable
from bench.peers.known import PEERS, Peer, Place
from bench.peers.run import Row, judge, measure, started
from bench.report import keep
from bench.ways import Way, wait_for

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    try:
        built("load")
        built("upstream")
    except SystemExit as missing:
        pytest.skip(str(missing))


@pytest.fixture(autouse=True)
def _cores() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    yield
    pin([os.getpid()], before)


class Here(Package):
    """A package that needs no network: it is there, or it is not."""

    def install(self) -> None:
        if self.version == "none":
            raise Unavailable("can't be installed: no such version")


def peer(name: str, *command: str, version: str = "1") -> Peer:
    def words(peer: Peer, place: Place) -> list[str]:
        return [word.format(port=place.port) for word in command]

    return Peer(name, "Python", "as a test", Here("PyPI", name, version), words)


RIGHT = peer("right", str(built("upstream")), "{port}", "3")
BROKEN = {
    "absent": (peer("absent", "true", version="none"), "can't be installed: no such version"),
    "no program": (peer("no program", "/no/such/program"), "can't be started: FileNotFoundError"),
    "ends": (peer("ends", sys.executable, "-c", "exit('no luck')"), "can't be started: it ended with 1: no luck"),
    "no MCP": (
        peer("no MCP", sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"),
        "can't be started: HTTPError: HTTP Error 501",
    ),
}


def test_a_broken_peer_is_a_row_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port = free_port()
        upstream = start(stack, [str(built("upstream")), str(port), "3"])
        wait_for(port, "/")
        rows = [started(stack, tmp_path, broken, port) for broken, _ in BROKEN.values()]
        rows.append(started(stack, tmp_path, RIGHT, port))
        measure(rows, upstream, rounds=1, seconds=0.2)
    for row, (_, reason) in zip(rows, BROKEN.values(), strict=False):
        assert row.reason.startswith(reason)
        assert (row.is_right, row.as_json()["reason"]) == (False, row.reason)
    right = rows[-1].as_json()
    assert (right["failed"], right["reason"], right["version"]) == (0, "", "PyPI 1")
    assert right["calls_per_second"] > 0


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that gives one answer to whatever it is sent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(peer: socket.socket) -> None:
        with peer:
            try:
                while peer.recv(65536):
                    peer.sendall(answer)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_row_with_wrong_answers_says_so_and_is_out_of_the_goals() -> None:
    with answering(b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n") as port:
        row = Row("wrong", "", way=Way("wrong", port, []))
        measure([row], os.getpid(), rounds=2, seconds=0.2)
    assert len(row.rounds) == 1
    assert "wrong or failed answers, the first: not 200" in row.reason
    assert not row.is_right


def test_a_row_where_nobody_listens_says_so() -> None:
    row = Row("gone", "", way=Way("gone", free_port(), []))
    measure([row], os.getpid(), rounds=1, seconds=0.2)
    assert row.reason == "failed: load: connect: Connection refused"


def rounds(calls: int) -> list[Round]:
    return [Round(1.0, calls, calls, 0, 0, 1, 1, 1, 1, 1, 0.1, 0.1, "")]


def test_a_goal_takes_the_fastest_that_is_right() -> None:
    rows = [
        Row("gateway, /mcp", rounds=rounds(4000)),
        Row("slow", "Python", rounds=rounds(10)),
        Row("fast", "Python", rounds=rounds(100)),
        Row("wrong", "Python", rounds=rounds(5000), reason="1 wrong or failed answers"),
        Row("absent", "C++", reason="can't be installed"),
    ]
    goals = judge(rows)
    assert goals["to_fastest_python_peer"] == {"value": 40.0, "at_least": 40.0, "met": True}
    assert goals["to_envoy"] == {"value": None, "at_least": 2.0, "met": False}


def test_each_kind_of_run_keeps_what_the_other_found(tmp_path: Path) -> None:
    keep({"goals": {"ours": 1}, "rows": [1]}, tmp_path)
    keep({"goals": {"to_envoy": 1}, "peers": {"rows": [1]}}, tmp_path)
    keep({"goals": {"ours": 2}, "rows": [2]}, tmp_path)
    found = json.loads((tmp_path / "latest.json").read_text())
    assert found == {"goals": {"ours": 2, "to_envoy": 1}, "rows": [2], "peers": {"rows": [1]}}


def test_the_names_of_peers_differ() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)


def chunks(*parts: bytes) -> bytes:
    head = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])


@pytest.mark.parametrize(
    ("answer", "sample"),
    [
        (chunks(b"the la", b"zy dog"), ""),
        (chunks(b"the lazy dog") + b"more", "wrong chunks"),
        (chunks(b"the lazy dog").replace(b"c\r\n", b"z\r\n"), "wrong chunks"),
        (chunks(b"the lazy dog", b'"isError"', b" : true"), "an error"),
        (chunks(b"the la", b"zy cat"), "not what was expected"),
    ],
)
def test_chunks_are_decoded_before_they_are_checked(answer: bytes, sample: str) -> None:
    with answering(answer) as port:
        found = run(port, Load(http(port, "/", {}, {}), 1, 0.1, expected="lazy dog"), [])
    assert found.sample.startswith(sample)
    assert bool(found.failed) == bool(sample)


CALL = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hi"}}}'


def test_the_upstream_serves_stdio_too() -> None:
    notification = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
    lines = b"\n".join([CALL, notification, CALL, b""])
    done = subprocess.run([built("upstream"), "-", "3"], input=lines, capture_output=True, check=True, timeout=10)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == [7, 7]
    assert answers[0]["result"]["content"][0]["text"] == "hi"


def test_the_upstream_takes_a_request_in_chunks() -> None:
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (CALL[:20], CALL[20:], b""))
    with ExitStack() as stack:
        port = free_port()
        start(stack, [str(built("upstream")), str(port), "3"])
        wait_for(port, "/")
        with socket.create_connection(("127.0.0.1", port), 10) as one:
            for byte in b"POST /mcp HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + parts:
                one.sendall(bytes([byte]))
            assert b'"id":7,"result"' in one.recv(65536)
