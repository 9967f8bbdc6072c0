"""The demo upstream: a small real MCP server and, on the same port, the plain REST face of the validation's stub.

Stands apart: imports nothing of the gateway. `python -m gateway.stub --port 9100`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import signal
import struct
import uuid
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Emit = Callable[[Json], Awaitable[None]]

_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")


def _schema(required: tuple[str, ...] = (), **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


_NUMBER: Json = {"type": "number"}
_TEXT: Json = {"type": "string"}

TOOLS: tuple[Json, ...] = (
    {
        "name": "stub.echo",
        "description": "Echo arguments back to the caller",
        "inputSchema": _schema(("text",), text=_TEXT),
    },
    {
        "name": "stub.sum",
        "description": "Sum a list of numbers",
        "inputSchema": _schema(("values",), values={"type": "array", "items": _NUMBER}),
    },
    {
        "name": "stub.progress",
        "description": "Report progress over a few steps, then finish",
        "inputSchema": _schema(steps={"type": "integer"}, seconds=_NUMBER),
    },
    {
        "name": "stub.slow",
        "description": "Answer after some seconds of silence",
        "inputSchema": _schema(seconds=_NUMBER),
    },
    {"name": "stub.fail", "description": "Fail, as a tool does (isError)", "inputSchema": _schema(message=_TEXT)},
    {"name": "stub.large", "description": "Return many bytes of text", "inputSchema": _schema(bytes=_NUMBER)},
    {"name": "stub.image", "description": "Return a small PNG", "inputSchema": _schema()},
    {
        "name": "stub.sample",
        "description": "Ask the client's model for a completion (sampling/createMessage)",
        "inputSchema": _schema(prompt=_TEXT),
    },
    {
        "name": "stub.elicit",
        "description": "Ask the user a question (elicitation/create)",
        "inputSchema": _schema(question=_TEXT),
    },
)

RESOURCES: tuple[Json, ...] = tuple(
    {
        "uri": f"stub://test-resource-{number}",
        "name": f"test-resource-{number}",
        "description": f"The stub's resource {number}",
        "mimeType": "text/plain",
    }
    for number in (1, 2)
)

TEMPLATES: tuple[Json, ...] = (
    {"uriTemplate": "stub://item/{id}", "name": "item", "description": "Any item", "mimeType": "text/plain"},
)

PROMPTS: tuple[Json, ...] = (
    {
        "name": "greet",
        "description": "Greet somebody",
        "arguments": [{"name": "name", "description": "Whom to greet", "required": True}],
    },
)


class RpcError(Exception):
    """A JSON-RPC error to answer with."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


@dataclass
class Session:
    """One client's session: what it can do, and what it has been asked."""

    capabilities: Mapping[str, Any]
    asked: dict[str, asyncio.Future[Any]] = field(default_factory=dict)


class Stub:
    """The ASGI application; `tools` may be changed while it runs, `calls` counts what reached it."""

    def __init__(self) -> None:
        self.tools: list[Json] = [dict(tool) for tool in TOOLS]
        self.sessions: dict[str, Session] = {}
        self.calls: list[Json] = []
        self.cancelled: list[Any] = []
        self.headers: list[Mapping[str, str]] = []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self.headers = [*self.headers[-99:], headers]
        match scope["method"], scope["path"].rstrip("/"):
            case "POST", "/mcp":
                await self._post(headers, await _body(receive), send)
            case "GET", "/mcp":
                await _empty(send, 405)
            case "DELETE", "/mcp":
                known = self.sessions.pop(headers.get("mcp-session-id", ""), None)
                await _empty(send, 204 if known else 404)
            case "GET", "/mcp/tools":
                tools = [
                    {
                        "name": tool["name"],
                        "description": tool["description"],
                        "input_schema": tool["inputSchema"],
                    }
                    for tool in self.tools
                ]
                await _json(send, 200, {"tools": tools})
            case "GET", "/mcp/resources":
                await _json(send, 200, {"resources": list(RESOURCES)})
            case "POST", "/mcp/tools/call":
                await self._rest_call(await _body(receive), send)
            case _:
                await _json(send, 404, {"detail": "not found"})

    async def _rest_call(self, body: bytes, send: Send) -> None:
        try:
            asked = json.loads(body)
            result = await self._call(asked["tool_name"], asked.get("arguments") or {}, None, None, _nowhere)
        except (ValueError, KeyError, TypeError, AttributeError):
            await _json(send, 422, {"detail": "send {'tool_name': ..., 'arguments': {...}}"})
        except RpcError as error:
            await _json(send, 404, {"detail": str(error)})
        else:
            await _json(send, 200, {"result": result})

    async def _post(self, headers: Mapping[str, str], body: bytes, send: Send) -> None:
        try:
            message = json.loads(body)
        except ValueError:
            await _json(send, 400, _failure(None, RpcError(-32700, "Parse error")))
            return
        method, id = message.get("method"), message.get("id")
        if method == "initialize":
            await self._initialize(message, send)
            return
        session = self.sessions.get(headers.get("mcp-session-id", ""))
        if session is None:
            await _json(send, 404, _failure(None, RpcError(-32001, "Session not found")))
        elif method is None:
            if (waiting := session.asked.pop(str(id), None)) and not waiting.done():
                waiting.set_result(message)
            await _empty(send, 202)
        elif id is None:
            if method == "notifications/cancelled":
                self.cancelled.append(message["params"].get("requestId"))
            await _empty(send, 202)
        elif method == "tools/call":
            await self._stream_call(session, message, send)
        else:
            await _json(send, 200, _outcome(id, lambda: self._answer(method, message.get("params") or {})))

    async def _initialize(self, message: Json, send: Send) -> None:
        params = message.get("params") or {}
        asked = params.get("protocolVersion")
        id = uuid.uuid4().hex
        self.sessions[id] = Session(params.get("capabilities") or {})
        result = {
            "protocolVersion": asked if asked in _VERSIONS else _VERSIONS[0],
            "capabilities": {"tools": {"listChanged": True}, "resources": {}, "prompts": {}, "logging": {}},
            "serverInfo": {"name": "stub", "version": "1.0.0"},
            "instructions": "A stub to try a gateway with.",
        }
        await _json(send, 200, _success(message["id"], result), {"mcp-session-id": id})

    def _answer(self, method: str, params: Json) -> Json:
        match method:
            case "ping":
                return {}
            case "tools/list":
                return {"tools": self.tools}
            case "resources/list":
                return {"resources": list(RESOURCES)}
            case "resources/templates/list":
                return {"resourceTemplates": list(TEMPLATES)}
            case "resources/read":
                return _read(str(params.get("uri")))
            case "prompts/list":
                return {"prompts": list(PROMPTS)}
            case "prompts/get":
                return _prompt(params)
            case "logging/setLevel":
                return {}
        raise RpcError(-32601, f"Method not found: {method}")

    async def _stream_call(self, session: Session, message: Json, send: Send) -> None:
        """Answer a tool call as an event stream, so that the tool may say something before its result."""
        params = message.get("params") or {}
        name, arguments = params.get("name"), params.get("arguments") or {}
        meta = params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        if name not in {"stub.progress", "stub.slow", "stub.sample", "stub.elicit"}:
            answer = await _outcome_of(message["id"], self._call(name, arguments, token, session, _nowhere))
            await _json(send, 200, answer)
            return
        await send(_start(200, {"content-type": "text/event-stream", "cache-control": "no-cache"}))

        async def emit(event: Json) -> None:
            data = f"event: message\ndata: {json.dumps(event)}\n\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})

        await emit(await _outcome_of(message["id"], self._call(name, arguments, token, session, emit)))
        await send({"type": "http.response.body", "body": b""})

    async def _call(self, name: Any, arguments: Json, token: Any, session: Session | None, emit: Emit) -> Json:
        if name not in {tool["name"] for tool in self.tools}:
            raise RpcError(-32602, f"Unknown tool: {name}")
        self.calls.append({"name": name, "arguments": arguments})
        match name:
            case "stub.sum":
                return _sum(arguments)
            case "stub.progress":
                return await _progress(arguments, token, emit)
            case "stub.slow":
                await asyncio.sleep(min(float(arguments.get("seconds", 1)), 60))
                return _text("done")
            case "stub.fail":
                return _text(str(arguments.get("message", "this tool always fails"))) | {"isError": True}
            case "stub.large":
                return _text("x" * min(int(arguments.get("bytes", 1 << 20)), 64 << 20))
            case "stub.image":
                image = {"type": "image", "data": base64.b64encode(_png()).decode(), "mimeType": "image/png"}
                return {"content": [image]}
            case "stub.sample":
                said = {"role": "user", "content": {"type": "text", "text": str(arguments.get("prompt", "Hello"))}}
                return await _ask(session, emit, "sampling", "sampling/createMessage", messages=[said], maxTokens=64)
            case "stub.elicit":
                form = _schema(("answer",), answer=_TEXT)
                question = str(arguments.get("question", "Well?"))
                return await _ask(
                    session, emit, "elicitation", "elicitation/create", message=question, requestedSchema=form
                )
        return _text(json.dumps(arguments)) | {"structuredContent": arguments}


async def _ask(session: Session | None, emit: Emit, capability: str, method: str, **params: Any) -> Json:
    """Ask the client on the call's stream, and show what it said."""
    if session is None or capability not in session.capabilities:
        return _text(f"The client does not offer {capability}.") | {"isError": True}
    id = f"stub-{uuid.uuid4().hex}"
    session.asked[id] = asyncio.get_running_loop().create_future()
    await emit({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    try:
        answer = await asyncio.wait_for(session.asked[id], 30)
    except TimeoutError:
        return _text("The client did not answer.") | {"isError": True}
    return _text(json.dumps(answer.get("result", answer.get("error"))))


def _sum(arguments: Json) -> Json:
    values = arguments.get("values")
    if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
        return _text("'values' must be a list of numbers") | {"isError": True}
    return _text(str(sum(values))) | {"structuredContent": {"sum": sum(values)}}


async def _progress(arguments: Json, token: Any, emit: Emit) -> Json:
    steps, seconds = min(int(arguments.get("steps", 5)), 1000), float(arguments.get("seconds", 1.0))
    for step in range(1, steps + 1):
        await asyncio.sleep(min(seconds, 60) / max(steps, 1))
        params = {"level": "info", "logger": "stub", "data": f"step {step}"}
        await emit({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
        if token is not None:
            seen: Json = {
                "progressToken": token,
                "progress": step,
                "total": steps,
                "message": f"step {step} of {steps}",
            }
            await emit({"jsonrpc": "2.0", "method": "notifications/progress", "params": seen})
    return _text(f"{steps} steps done")


def _read(uri: str) -> Json:
    known = {resource["uri"] for resource in RESOURCES}
    if uri not in known and not uri.startswith("stub://item/"):
        raise RpcError(-32002, "Resource not found", {"uri": uri})
    return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": f"This is {uri.rpartition('/')[2]}."}]}


def _prompt(params: Json) -> Json:
    if params.get("name") != "greet":
        raise RpcError(-32602, f"Unknown prompt: {params.get('name')}")
    name = (params.get("arguments") or {}).get("name", "world")
    return {"messages": [{"role": "user", "content": {"type": "text", "text": f"Please greet {name}."}}]}


def _png() -> bytes:
    """A red square of 8 by 8."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\xff\0\0" * 8 for _ in range(8))
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _text(text: str) -> Json:
    return {"content": [{"type": "text", "text": text}]}


def _success(id: Any, result: Json) -> Json:
    return {"jsonrpc": "2.0", "id": id, "result": result}


def _failure(id: Any, error: RpcError) -> Json:
    shown: Json = {"code": error.code, "message": str(error)}
    if error.data is not None:
        shown["data"] = error.data
    return {"jsonrpc": "2.0", "id": id, "error": shown}


def _outcome(id: Any, work: Callable[[], Json]) -> Json:
    try:
        return _success(id, work())
    except RpcError as error:
        return _failure(id, error)


async def _outcome_of(id: Any, work: Awaitable[Json]) -> Json:
    try:
        return _success(id, await work)
    except RpcError as error:
        return _failure(id, error)
    except (TypeError, ValueError) as error:
        return _success(id, _text(f"Bad arguments: {error}") | {"isError": True})


async def _nowhere(_: Json) -> None:
    """Where the events of a call without a stream go."""


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _start(status: int, headers: Mapping[str, str]) -> Json:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": raw}


async def _json(send: Send, status: int, value: Json, headers: Mapping[str, str] | None = None) -> None:
    body = json.dumps(value).encode()
    fixed = {"content-type": "application/json", "content-length": str(len(body))}
    await send(_start(status, fixed | dict(headers or {})))
    await send({"type": "http.response.body", "body": body})


async def _empty(send: Send, status: int) -> None:
    await send(_start(status, {} if status == 204 else {"content-length": "0"}))
    await send({"type": "http.response.body", "body": b""})


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def serve(host: str, port: int) -> None:
    """Serve a stub until SIGTERM or SIGINT."""
    from hypercorn.asyncio import serve as hypercorn_serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"{host}:{port}"]
    config.loglevel = "WARNING"
    config.graceful_timeout = 1
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = 1_000_000
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    await hypercorn_serve(Stub(), config, shutdown_trigger=ending.wait)  # type: ignore[arg-type]  # its own ASGI types


def main() -> None:
    parser = argparse.ArgumentParser(prog="gateway.demo.stub", description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100)
    options = parser.parse_args()
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.host, options.port))


if __name__ == "__main__":
    main()
