"""The plain REST face as an upstream: `GET {url}/tools`, `GET {url}/resources`, `POST {url}/tools/call`.

What the validation's own stub spoke. It has no handshake, no sessions, no progress: its tools become MCP's, its
answers tool results, its 4xx and 5xx a tool's own errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.errors import ParseError, UpstreamProtocolError, UpstreamRefused, UpstreamTimeout
from gateway.net.http_client import HttpClient
from gateway.protocol.exchange import Handshake, Hello
from gateway.protocol.messages import Failure, Reply, Request, parse
from gateway.upstream.contract import UpstreamSession
from gateway.upstream.sessionless import Sessionless
from gateway.upstream.wire import WireLimits, foreign, read_bounded

VERSION = "rest"
"""What stands for a protocol version with a server that has none."""


class RestUpstream(Sessionless):
    """One server with a plain REST face."""

    def __init__(self, server: str, url: str, client: HttpClient, limits: WireLimits) -> None:
        self._server = server
        self._url = url.rstrip("/")
        self._client = client
        self._limits = limits

    async def open(self, hello: Hello) -> UpstreamSession:
        """See whether the face is there."""
        seconds = self._limits.handshake_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._tools()
        except TimeoutError:
            raise UpstreamTimeout(
                self._server, f"Server {self._server!r} did not list its tools in {seconds:g} s."
            ) from None
        capabilities: dict[str, Any] = {"tools": {}, "resources": {}}
        return UpstreamSession(
            Handshake(VERSION, capabilities, {"name": self._server, "version": "unknown"}, None), None
        )

    async def call(self, session: UpstreamSession, request: Request) -> Reply | Failure:
        match request.method:
            case "tools/list":
                result: dict[str, Any] = {"tools": await self._tools()}
            case "resources/list":
                result = {"resources": await self._resources()}
            case "tools/call":
                result = await self._call(request.params)
            case method:
                return Failure(request.id, -32601, f"Server {self._server!r} has a REST face only, without {method}.")
        return Reply(request.id, result)

    async def close(self) -> None:
        self._client.close()

    async def _tools(self) -> list[dict[str, Any]]:
        found = await self._list("tools", required=True)
        return [
            {"name": tool.get("name"), "description": tool.get("description") or "", "inputSchema": _schema(tool)}
            for tool in found
        ]

    async def _resources(self) -> list[dict[str, Any]]:
        found = await self._list("resources", required=False)
        return [resource if "uri" in resource else {**resource, "uri": str(resource.get("name"))} for resource in found]

    async def _list(self, kind: str, *, required: bool) -> list[dict[str, Any]]:
        status, value = await self._ask("GET", f"/{kind}")
        if status == 404 and not required:
            return []
        items = value.get(kind) if isinstance(value, dict) else value
        if status != 200 or not isinstance(items, list):
            raise UpstreamProtocolError(
                self._server, f"Server {self._server!r} has no REST face: GET {kind} answered HTTP {status}."
            )
        return [item for item in items if isinstance(item, dict)]

    async def _call(self, params: Mapping[str, Any]) -> dict[str, Any]:
        body = {"tool_name": params.get("name"), "arguments": params.get("arguments") or {}}
        status, value = await self._ask("POST", "/tools/call", body)
        if status >= 400:
            return _text(f"HTTP {status}: {_readable(value)}") | {"isError": True}
        if isinstance(value, dict) and set(value) == {"result"}:
            value = value["result"]
        if isinstance(value, dict) and isinstance(value.get("content"), list):
            return value  # a tool result already
        return _text(_readable(value)) | ({"structuredContent": value} if isinstance(value, dict) else {})

    async def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        content = None if body is None else orjson.dumps(body)
        headers = {"accept": "application/json"} | ({} if body is None else {"content-type": "application/json"})
        with foreign(self._server):
            response = await self._client.send(method, self._url + path, headers, content)
            try:
                data = await read_bounded(self._server, response, self._limits.max_result)
            finally:
                response.close()
        if response.status in (401, 403):
            raise UpstreamRefused(self._server, f"Server {self._server!r} answered {response.status}.")
        try:
            return response.status, parse(data)
        except ParseError:
            if response.status < 400:
                raise UpstreamProtocolError(
                    self._server, f"Server {self._server!r} answered {path} with something that is not JSON."
                ) from None
            return response.status, data.decode(errors="replace")[:1000]


def _schema(tool: Mapping[str, Any]) -> Any:
    schema = tool.get("inputSchema", tool.get("input_schema"))
    return {"type": "object"} if schema is None else schema


def _text(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}


def _readable(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
