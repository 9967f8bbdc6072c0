"""Bad input over real sockets, at a replica of the running stack: what is answered, and what stays intact."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fix_stack import KEY, Running

pytestmark = pytest.mark.system


def rest(body: bytes) -> bytes:
    return post("/mcp/tools/call", body)


def rpc(body: bytes) -> bytes:
    return post("/rpc", body)


def server(**fields: Any) -> bytes:
    spec = {"name": "bad", "url": "http://127.0.0.1:9/mcp", **fields}
    return post("/mcp/servers", json.dumps({name: value for name, value in spec.items() if value is not ...}).encode())


def post(path: str, body: bytes, more: str = "", length: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n{more}"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode("latin-1") + body


def call(arguments: bytes) -> bytes:
    return b'{"name": "intact__stub.echo", "arguments": ' + arguments + b"}"


def message(params: bytes, method: bytes = b"tools/call") -> bytes:
    return b'{"jsonrpc": "2.0", "id": 7, "method": "' + method + b'", "params": ' + params + b"}"


FORGED = "Content-Type: application/json\r\nMcp-Session-Id: x\r\n"

# what is sent, the status it gets, and a word (REST) or the code (JSON-RPC) of its answer
TABLE: list[tuple[str, bytes, int, str | int]] = [
    ("broken JSON", rest(b'{"name": '), 400, "JSON"),
    ("broken JSON, JSON-RPC", rpc(b'{"jsonrpc": '), 400, -32700),
    ("an empty body", rest(b""), 400, "JSON"),
    ("wrong type of a name", rest(b'{"name": 3}'), 422, "string"),
    ("wrong type of arguments, JSON-RPC", rpc(message(b'{"name": "x", "arguments": 3}')), 200, -32602),
    ("an unknown field", rest(b'{"name": "x", "colour": 1}'), 422, "colour"),
    ("an unknown method", rpc(message(b"{}", b"nope")), 200, -32601),
    ("an unknown tool", rest(b'{"name": "nope"}'), 404, "nope"),
    ("an unknown tool, JSON-RPC", rpc(message(b'{"name": "nope"}')), 200, -32602),
    ("a duplicate name", server(name="intact", description="other"), 409, "intact"),
    ("a bad URL", server(url="http://"), 422, "URL"),
    ("a URL of another scheme", server(url="file:///etc/passwd"), 422, "http"),
    ("a metadata address", server(url="http://169.254.169.254/latest"), 422, "metadata"),
    ("a name with spaces", server(name="a b"), 422, "name"),
    ("a name with a slash", server(name="a/b"), 422, "name"),
    ("a name that is too long", server(name="x" * 64), 422, "name"),
    ("a line break in a name", server(name="a\nb"), 422, "name"),
    ("a control character in a name", server(name="a\x00b"), 422, "name"),
    ("a line break in a header", server(headers={"X-A": "b\r\nX-C: d"}), 422, "X-A"),
    ("a control character in a header", server(headers={"X-A": "b\x07"}), 422, "X-A"),
    ("no URL", server(url=...), 422, "url"),
    ("invalid UTF-8", rest(b'{"name": "\xff"}'), 400, "UTF-8"),
    ("a lone surrogate", rest(call(b'{"a": "\\ud800"}')), 400, "surrogate"),
    ("10,000 levels", rest(call(b"[" * 10_000 + b"]" * 10_000)), 400, "depth"),
    ("300 levels", rest(call(b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}")), 400, "nested"),
    ("10^400", rest(call(b'{"a": 1' + b"0" * 400 + b"}")), 400, "infinity"),
    ("2^64", rest(call(b'{"a": 18446744073709551616}')), 400, "18446744073709551616"),
    ("2^64, JSON-RPC", rpc(message(b'{"name": "x", "arguments": {"a": 18446744073709551616}}')), 400, -32700),
    ("an id that is no id", rpc(b'{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}'), 400, -32600),
    ("a batch of too many", rpc(b"[" + b",".join([message(b"{}", b"ping")] * 51) + b"]"), 400, -32600),
    ("an empty batch", rpc(b"[]"), 400, -32600),
    ("a key in the URL", post("/mcp/tools/call?api_key=secret", b"{}"), 400, "Authorization"),
    ("a foreign Origin", post("/rpc", b"{}", "Origin: https://evil.example\r\n"), 403, -32041),
    ("a foreign Host", post("/rpc", b"{}").replace(b"Host: localhost", b"Host: evil.example"), 403, -32041),
    ("two Authorization headers", post("/rpc", b"{}", "Authorization: Bearer x\r\n"), 401, -32040),
    ("neither JSON nor events", post("/mcp/tools/call", b"{}", "Accept: text/html\r\n"), 406, "event-stream"),
    ("a batch at /mcp without a session", post("/mcp", b"[]", "Content-Type: application/json\r\n"), 400, -32600),
    ("MCP without JSON", post("/mcp", b"{}", "Content-Type: text/plain\r\n"), 415, -32600),
    ("a forged session", post("/mcp", message(b"{}", b"ping"), FORGED), 404, -32001),
    ("50 MB", rest(b"x" * 50_000_000), 413, "4194304"),
    ("50 MB, JSON-RPC", rpc(b"x" * 50_000_000), 413, -32600),
    ("a length of nonsense", rest(b"{}").replace(b"Content-Length: 2", b"Content-Length: two"), 400, ""),
    ("headers of 1 MB", post("/rpc", b"{}", f"X-A: {'x' * 1_000_000}\r\n"), 431, ""),
]  # fmt: skip


@pytest.fixture
def intact(stack: Running) -> Iterator[Callable[[], None]]:
    """Says whether nothing was lost: the registry, other calls, the workers."""
    with stack.client() as client:
        client.post("/mcp/servers", json={"name": "intact", "url": stack.stub})
    workers = set(stack.workers(stack.replicas[0]))
    pids = _pids(stack)
    assert len(pids) > 4  # the workers of two replicas, and who started them
    revision = _settled(stack)

    def check() -> None:
        with stack.client(base_url=stack.replicas[0]) as client:
            answer = client.post("/mcp/tools/call", json={"name": "intact__stub.sum", "arguments": {"values": [1, 2]}})
            assert answer.json()["result"]["structuredContent"] == {"sum": 3}
            assert client.get("/readyz").json()["revision"] == revision, "the registry changed"
        assert set(stack.workers(stack.replicas[0])) == workers
        assert _pids(stack) == pids, "a worker died"

    yield check
    with stack.client() as client:
        client.delete("/mcp/servers/intact")


def _pids(stack: Running) -> list[int]:
    """The processes that are ours: Postgres has one more for each connection, and some that come and go."""
    return sorted(pid for pid in stack.tree() if b"-m\0gateway" in _command(pid))


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it is gone by now
        return b""


def _settled(stack: Running) -> int:
    """The registry's revision, when every worker serves it."""
    while True:
        found = {state["revision"] for replica in stack.replicas for state in stack.workers(replica).values()}
        if len(found) == 1:
            return int(found.pop())
        time.sleep(0.05)


@pytest.mark.parametrize(("what", "sent", "status", "said"), TABLE, ids=[row[0] for row in TABLE])
def test_bad_input_is_answered_and_nothing_is_lost(
    stack: Running, intact: Callable[[], None], what: str, sent: bytes, status: int, said: str | int
) -> None:
    head, body = exchange(stack, sent)
    assert int(head.split()[1]) == status
    if isinstance(said, int):
        answer = json.loads(body)
        assert (answer["jsonrpc"], answer["error"]["code"]) == ("2.0", said)
        assert answer["id"] in (7, None)
    elif said:
        problem = json.loads(body)
        assert problem["status"] == status
        assert said in problem["detail"]
    assert b"Traceback" not in body
    assert KEY.encode() not in body
    intact()


def exchange(stack: Running, sent: bytes, *, seconds: float = 30) -> tuple[bytes, bytes]:
    """Send bytes to a replica and read one answer."""
    with connect(stack, seconds) as client:
        try:
            client.sendall(sent)
        except (ConnectionResetError, BrokenPipeError):
            pass  # refused before all was sent: the answer is there
        return read(client)


def connect(stack: Running, seconds: float = 30) -> socket.socket:
    parts = urlsplit(stack.replicas[0])
    return socket.create_connection((parts.hostname or "localhost", parts.port or 80), seconds)


def read(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        if not piece:
            break
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    wanted = int(lengths[0][15:]) if lengths else 0
    while len(body) < wanted and (piece := client.recv(65536)):
        body += piece
    return head, body


def test_a_body_that_is_cut_off_changes_nothing(stack: Running, intact: Callable[[], None]) -> None:
    for _ in range(5):
        with connect(stack) as client:
            client.sendall(post("/mcp/servers", b'{"name": "half", "url": "http://loc', length=500))
    intact()


def test_duplicate_keys_mean_the_last_one(stack: Running, intact: Callable[[], None]) -> None:
    head, body = exchange(stack, rest(b'{"name": "nope", "name": "intact__stub.echo", "arguments": {"a": 1, "a": 2}}'))
    assert int(head.split()[1]) == 200
    assert json.loads(body)["result"]["structuredContent"] == {"a": 2}
    intact()


def test_a_client_that_hangs_up_in_the_middle_of_a_stream_costs_nothing(
    stack: Running, intact: Callable[[], None]
) -> None:
    for _ in range(5):
        with connect(stack) as client:
            body = b'{"name": "intact__stub.progress", "arguments": {"steps": 50, "seconds": 20}}'
            client.sendall(post("/mcp/tools/call", body, "Accept: text/event-stream\r\n"))
            client.recv(200)
    intact()
