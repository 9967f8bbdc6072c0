"""The benchmarks' own programs: a right answer counts, and every kind of wrong one fails."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.load import NUMBER, Load, http, run
from bench.native import built

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    try:
        built("load")
        built("upstream")
    except SystemExit as missing:
        pytest.skip(str(missing))


@contextmanager
def upstream() -> Iterator[int]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    process = subprocess.Popen([str(built("upstream")), str(port), "5"])
    try:
        _wait_for(port)
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that gives one answer to whatever it is sent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(peer: socket.socket) -> None:
        with peer:
            while peer.recv(65536):
                peer.sendall(answer)

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


def call(port: int, tool: str = "echo", bytes: int = 0) -> bytes:
    arguments = {"text": f"call {NUMBER}", "bytes": bytes}
    params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": 1}}
    return http(port, "/mcp", {"jsonrpc": "2.0", "id": NUMBER, "method": "tools/call", "params": params}, {})


@pytest.mark.parametrize(("tool", "bytes"), [("echo", 0), ("progress", 0), ("large", 300_000)])
def test_right_answers_count_in_the_closed_loop(tool: str, bytes: int) -> None:
    with upstream() as port:
        found = run(port, Load(call(port, tool, bytes), 4, 0.3, least=bytes, expected="call"), [])
    assert found.calls > 0
    assert (found.failed, found.sample) == (0, "")
    assert 0 < found.p50 <= found.p99 <= found.max


def test_the_open_loop_sends_as_many_as_fall_due() -> None:
    with upstream() as port:
        found = run(port, Load(call(port), 4, 1.0, rate=200.0), [])
    assert (found.failed, found.unsent) == (0, 0)
    assert 150 <= found.calls <= 200


RESULT = b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":%b}}'


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", "not 200"),
        (b"HTTP/1.1 200 X\r\nContent-Length: 63\r\n\r\n" + RESULT % b"false", "not this call's answer"),
    ],
)
def test_a_wrong_answer_fails_and_its_beginning_is_shown(answer: bytes, what: str) -> None:
    with answering(answer) as port:
        found = run(port, Load(call(port), 2, 0.2), [])
    assert found.failed > 0
    assert found.sample.startswith(what)


def test_an_error_of_the_tool_fails() -> None:
    body = RESULT % b"true"
    with answering(b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)) as port:
        request = http(port, "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}, {})
        found = run(port, Load(request, 2, 0.2), [])
    assert found.failed > 0
    assert found.sample.startswith("an error")


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("the upstream does not listen")
