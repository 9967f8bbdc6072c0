"""An API that an OpenAPI document describes, as an upstream: a call of a tool is a request of one operation.

What it offers was compiled from the document when the registry looked at it (`registry/documents`); the tools and how
their requests are made come from there together, so that each call is made as the tool was listed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.model.schema_check import SchemaCheck, UncheckableSchema
from gateway.model.server import NO_OFFERS, Offers
from gateway.net.http_client import HttpClient
from gateway.openapi.answer import result_of
from gateway.openapi.plan import Plan
from gateway.openapi.request import BadArguments, request_of
from gateway.protocol.exchange import Handshake, Hello
from gateway.protocol.messages import Failure, Reply, Request
from gateway.upstream.contract import UpstreamSession
from gateway.upstream.sessionless import Sessionless
from gateway.upstream.wire import WireLimits, foreign, read_bounded

VERSION = "openapi"
"""What stands for a protocol version with an API."""
_MAX_KNOWN = 500  # tools whose plans are read


class OpenApiUpstream(Sessionless):
    """One API."""

    def __init__(
        self, server: str, url: str, client: HttpClient, limits: WireLimits, offers: Callable[[str], Offers]
    ) -> None:
        """`offers` gives what the registry has of a server by now."""
        self._server = server
        self._url = url
        self._client = client
        self._limits = limits
        self._offers = offers
        self._source: Offers = NO_OFFERS
        self._known: dict[str, tuple[Plan, SchemaCheck | None]] = {}

    async def open(self, hello: Hello) -> UpstreamSession:
        """An API has no handshake: what is known of it is all that there is."""
        offers = self._offers(self._server)
        return UpstreamSession(Handshake(VERSION, {"tools": {}}, offers.server_info, offers.instructions), None)

    async def call(self, session: UpstreamSession, request: Request) -> Reply | Failure:
        match request.method:
            case "tools/call":
                return await self._call(request)
            case "tools/list":
                return Reply(request.id, {"tools": list(self._offers(self._server).tools)})
            case "ping":
                return Reply(request.id, {})
            case method:
                return Failure(request.id, -32601, f"Server {self._server!r} is an HTTP API, without {method}.")

    async def close(self) -> None:
        self._client.close()

    async def _call(self, request: Request) -> Reply | Failure:
        name, arguments = request.params.get("name"), request.params.get("arguments") or {}
        known = self._operation(name) if isinstance(name, str) else None
        if known is None:
            return Failure(request.id, -32602, f"Unknown tool: {str(name)[:200]}")
        plan, check = known
        try:
            made = request_of(self._url, plan, arguments if isinstance(arguments, Mapping) else {})
        except BadArguments as error:
            return Reply(request.id, {"content": [{"type": "text", "text": str(error)}], "isError": True})
        with foreign(self._server):
            response = await self._client.send(made.method, made.url, made.headers, made.body)
            try:
                data = await read_bounded(self._server, response, self._limits.max_result)
            finally:
                response.close()
        media, location = response.header(b"content-type"), response.header(b"location")
        uri = f"openapi://{self._server}/{name}"
        result: dict[str, Any] = result_of(plan, uri, response.status, media, location or None, data, check)
        return Reply(request.id, result)

    def _operation(self, tool: str) -> tuple[Plan, SchemaCheck | None] | None:
        """How a tool's request is made, and what its answers are checked with."""
        offers = self._offers(self._server)
        if offers is not self._source:
            self._source = offers
            self._known.clear()
        known = self._known.get(tool)
        if known is None and (plan := offers.plans.get(tool)) is not None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            schema = next((each.get("outputSchema") for each in offers.tools if each["name"] == tool), None)
            known = self._known[tool] = Plan.from_json(plan), _check(schema)
        return known


def _check(schema: Mapping[str, Any] | None) -> SchemaCheck | None:
    try:
        return None if schema is None else SchemaCheck(schema)
    except UncheckableSchema:
        return None
