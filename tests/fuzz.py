"""`make fuzz`: what a hostile peer may send, fed by atheris (libFuzzer) to the readers of it, for a bounded time.

Usage: `python -m tests.fuzz server|client|messages SECONDS`. `server` is HTTP/1.1 under hypercorn, `client` the answers
of upstreams, `messages` their JSON-RPC and events. The coverage leads to inputs that the tests' own tables do not have;
each must be answered, refused or reported, and nothing else may be raised. An input that fails is kept in the current
folder, as libFuzzer does, and ends the run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["gateway.run", "gateway.net", "gateway.protocol"]):
    from gateway.errors import InvalidRequest, ParseError
    from gateway.protocol.large_results import checked
    from gateway.protocol.messages import Batch, decode, decode_answer, encode
    from gateway.protocol.sse import EventTooLarge, SseDecoder
    from tests.net.test_http1_client import PIECES as ANSWERS
    from tests.net.test_http1_client import fed as fed_to_client
    from tests.run.test_http1 import PIECES as REQUESTS
    from tests.run.test_http1 import fed as fed_to_server

_RUNNER = asyncio.Runner()
_MESSAGES = [
    b'{"jsonrpc":"2.0","id":1,"result":{}}',
    b'{"result":{"content":[]},"jsonrpc":"2.0","id":"a"}',
    b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"m"}}',
    b'{"jsonrpc":"2.0","method":"m","params":{}}',
    b'{"jsonrpc":"2.0","id":1,"result":{',
    b'},"jsonrpc":"2.0","id":2}',
    b'{"jsonrpc":"2.0","id":',
    b',"result":{}}',
    b'"id":',
    b"[" * 100,
    b"9" * 19,
    b"data: ",
    b"\n\n",
    b"id: 1\n",
]


def server(data: bytes) -> None:
    """A client's bytes, in parts as long as the first byte says."""
    if data:
        _RUNNER.run(fed_to_server(_with_pieces(data[1:], REQUESTS), 1 + 8 * data[0]))


def client(data: bytes) -> None:
    """A server's bytes, in parts as long as the first byte says."""
    if data:
        _RUNNER.run(fed_to_client(_with_pieces(data[1:], ANSWERS), 1 + 8 * data[0]))


def messages(data: bytes) -> None:
    """A server's message; one that can be read is written and read again. Then the same bytes as an event stream.

    What would be passed on unread, if it were large, can be read.
    """
    data = _with_pieces(data, _MESSAGES)
    if data[:1] == b"{" and checked(memoryview(data)) is not None:
        json.loads(data)
    with suppress(ParseError, InvalidRequest):
        found = decode_answer(data)
        if not isinstance(found, Batch):
            again = decode(encode(found), 1)
            assert type(again) is type(found)
    with suppress(EventTooLarge, UnicodeDecodeError):
        decoder = SseDecoder(1 << 16)
        for at in range(0, len(data), 7):
            list(decoder.feed(data[at : at + 7]))


def _with_pieces(data: bytes, pieces: list[bytes]) -> bytes:
    """The bytes, where each one above 0xE0 stands for a whole piece, which chance would not make."""
    return b"".join(pieces[each % len(pieces)] if each > 0xE0 else bytes([each]) for each in data)


def main() -> None:
    targets: dict[str, Callable[[bytes], None]] = {"server": server, "client": client, "messages": messages}
    name, seconds = sys.argv[1:3]
    logging.disable(logging.CRITICAL)
    options = [f"-max_total_time={seconds}", "-max_len=600", "-timeout=20", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options], targets[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
