"""The process that runs stdio servers: one per replica, each server shown to all workers as streamable HTTP.

Listens on a unix socket that only its user can reach. `PUT /{key}` says what to run, `/{key}/mcp` is then an MCP
endpoint: each session has a child of its own, but for those that declare nothing and share one. Knows processes, pipes
and HTTP; nothing of the registry. Source: MCP 2025-11-25, basic, transports, stdio.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import orjson
import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from gateway.errors import GatewayError, SettingsError
from gateway.observability import logs
from gateway.programs.processes import Bridged, Busy, Program, Session, Unknown
from gateway.protocol.messages import SERVER_BATCH, Batch, Failure, Reply, Request, decode, encode
from gateway.protocol.sse import KEEP_ALIVE, encode_event
from gateway.settings import Settings
from gateway.tasks import end, keep
from gateway.upstream.multiplexer import ChannelClosed

_KEEP_ALIVE_SECONDS = 15.0
_STREAM = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
SHARED = "mcp-gateway-shared"
"""The header by which a worker says that a session declares nothing and is used by many."""

log = logging.getLogger("gateway.bridge")


class Bridge:
    """The ASGI callable."""

    def __init__(self, programs: Bridged, max_body: int) -> None:
        self._programs = programs
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        headers = Headers(scope=scope)
        try:
            match scope["method"], scope["path"].split("/")[1:]:
                case "PUT", [key]:
                    self._programs.describe(key, Program(**orjson.loads(await self._body(receive))))
                    await _empty(send, 204)
                case "POST", [key, "mcp"]:
                    await self._post(key, headers, await self._body(receive), receive, send)
                case "GET", [key, "mcp"]:
                    await _listen(self._programs.session(headers.get("mcp-session-id")), receive, send)
                case "DELETE", [key, "mcp"]:
                    await self._programs.close_session(headers.get("mcp-session-id"))
                    await _empty(send, 204)
                case _:
                    await _empty(send, 404)
        except Unknown:
            await _empty(send, 404)
        except Busy as error:
            after = [] if error.retry_after is None else [(b"retry-after", str(error.retry_after).encode())]
            await _json(send, 503, encode(Failure(None, -32000, str(error))), after)
        except GatewayError as error:
            await _json(send, 400, encode(Failure(None, error.code, error.detail)))

    async def _body(self, receive: Receive) -> bytes:
        parts = bytearray()
        while True:
            message = await receive()
            parts += message.get("body", b"")
            if len(parts) > self._max_body:
                raise GatewayError("The message is too large.")
            if not message.get("more_body", False):
                return bytes(parts)

    async def _post(self, key: str, headers: Headers, body: bytes, receive: Receive, send: Send) -> None:
        message = decode(body, SERVER_BATCH)
        match message:
            case Request(method="initialize"):
                session, answer = await self._programs.open(key, message, shared=SHARED in headers)
                extra = [(b"mcp-session-id", session.id.encode())] if session else []
                await _json(send, 200, encode(answer), extra)
            case Request():
                session = self._programs.session(headers.get("mcp-session-id"))
                await _first_of(lambda: _answer(session, message, send), lambda: _left(receive))
            case Batch():
                await _empty(send, 400)
            case _:
                await self._programs.session(headers.get("mcp-session-id")).post(message)
                await _empty(send, 202)


async def _answer(session: Session, request: Request, send: Send) -> None:
    """JSON if the answer comes first, else an event stream."""
    streaming = False
    try:
        async with aclosing(session.request(request)) as messages:
            async for message in messages:
                if not streaming and isinstance(message, Reply | Failure):
                    await _json(send, 200, encode(message))
                    return
                if not streaming:
                    streaming = True
                    await send({"type": "http.response.start", "status": 200, "headers": _STREAM})
                frame = encode_event(encode(message), name="message")
                await send({"type": "http.response.body", "body": frame, "more_body": True})
    except ChannelClosed as error:
        lost = encode(Failure(request.id, -32053, f"Outcome unknown: {error}."))
        if not streaming:
            await _json(send, 200, lost)
            return
        await send({"type": "http.response.body", "body": encode_event(lost, name="message"), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _listen(session: Session, receive: Receive, send: Send) -> None:
    """What the child says by itself, until it or the worker goes."""

    async def write() -> None:
        async with aclosing(session.listen()) as messages:
            async for message in messages:
                frame = encode_event(encode(message), name="message")
                await send({"type": "http.response.body", "body": frame, "more_body": True})

    async def keep_alive() -> None:
        while True:
            await send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})
            await asyncio.sleep(_KEEP_ALIVE_SECONDS)

    await send({"type": "http.response.start", "status": 200, "headers": _STREAM})
    await _first_of(write, keep_alive, lambda: _left(receive))
    await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first_of(*works: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do things side by side until the first of them is done; what it raises is raised."""
    tasks = [asyncio.create_task(work()) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)
    for task in done:
        task.result()


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _json(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    named = [(b"content-type", b"application/json"), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": named})
    await send({"type": "http.response.body", "body": body})


async def _empty(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def run(settings: Settings, path: str, parent: int) -> None:
    """Serve on a socket until told to end, or until the parent is gone; then no child is left."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # ^C reaches the whole group; the parent tells us in order
    loop.add_reader(parent, ending.set)
    loop.set_exception_handler(_report)
    config = Config()
    config.bind = [f"unix:{path}"]
    config.umask = 0o177
    config.loglevel = "WARNING"
    config.graceful_timeout = 1.0
    config.keep_alive_timeout = 10  # hypercorn notices a closed unix socket only then; workers keep theirs for 4 s
    config.keep_alive_max_requests = 1_000_000_000
    programs = Bridged(settings.max_children, settings.max_result, settings.session_idle_seconds)
    reaping = asyncio.create_task(keep("idle programs", programs.reap))
    application: Any = Bridge(programs, settings.max_result)
    try:
        await serve(application, config, shutdown_trigger=ending.wait, mode="asgi")
    finally:
        await end([reaping])
        await programs.close()


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report errors of callbacks; a connection of hypercorn's that is cancelled at the end is no fault."""
    if not isinstance(context.get("exception"), asyncio.CancelledError):
        loop.default_exception_handler(context)


def main() -> int:
    """`python -m gateway.programs.app SOCKET PIPE`; settings come from the environment."""
    path, parent = sys.argv[1], int(sys.argv[2])
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        logging.getLogger("gateway").error("%s", error)
        return 3
    logs.configure(settings.log_format, settings.log_level, replica=settings.replica_name, worker="bridge")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, path, parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
