"""The ASGI callable: one hand-routed match, the doors, the lifespan.

Read from `Application.__call__` down: a request passes the doors, is routed, and ends in `endpoint`, `lists`, `admin`,
`registry` or `health`. Works below any `root_path`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from gateway.edge import health, lists, no_oauth, openapi, welcome
from gateway.edge import http_sse as legacy
from gateway.edge import mcp as endpoint
from gateway.edge import registry_documents as registry
from gateway.edge import rest as admin
from gateway.edge.address import Address
from gateway.edge.answers import Wire
from gateway.edge.assembly import open_gateway
from gateway.edge.doors import Doors
from gateway.edge.replies import (
    Http,
    accepted,
    log_refusal,
    request_id,
    send_empty,
    send_failure,
    send_json,
    send_problem,
)
from gateway.errors import (
    ClientLeft,
    GatewayDisabled,
    GatewayError,
    LoopDetected,
    MethodNotAllowed,
    NotFound,
    NotReady,
    SettingsError,
    StoreUnavailable,
)
from gateway.methods.services import Gateway
from gateway.model.principals import Principal
from gateway.net.dialer import Resolve, resolve
from gateway.settings import Settings
from gateway.upstream.factory import Connect

_OPEN_AGAIN_SECONDS = 1.0
_DISCARD_BODIES = 16  # times GATEWAY_MAX_BODY: what is read of a refused body, so that the refusal arrives

log = logging.getLogger("gateway.asgi")


class Application:
    """One gateway as an ASGI 3 application; `async with app.lifespan():` where the host runs none."""

    def __init__(
        self,
        settings: Settings,
        *,
        connect: Connect | None = None,
        resolve: Resolve = resolve,
        worker: str | None = None,
    ) -> None:
        settings.check()
        self._settings = settings
        self._doors = Doors.of(settings)
        self._connect = connect
        self._resolve = resolve
        self._worker = worker
        self._gateway: Gateway | None = None
        self._opening: asyncio.Lock | None = None
        self._stack: AsyncExitStack | None = None
        self._failed: tuple[float, Exception] | None = None
        self.draining = asyncio.Event()
        self.leaving = False
        """Whether a drain is about to begin: `/readyz` says so, everything is served as before."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                await self._lifespan(receive, send)
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await send({"type": "websocket.close", "code": 1000, "reason": "MCP has no WebSocket transport"})

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[Application]:
        """Open the gateway for the time of the block."""
        await self._open()
        try:
            yield self
        finally:
            await self.close()

    async def close(self) -> None:
        """End streams and close everything; a later request opens it anew."""
        self.draining.set()
        stack, self._stack, self._gateway = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._open()
        except (SettingsError, StoreUnavailable) as error:
            await send({"type": "lifespan.startup.failed", "message": _cause(error)})
            return
        except Exception as error:
            log.exception("the gateway could not open")
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: see the log"})
            return
        await send({"type": "lifespan.startup.complete"})
        while (await receive())["type"] != "lifespan.shutdown":
            pass
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _open(self) -> Gateway:
        """Open once; whoever comes shortly after a failure gets the same. Raises SettingsError, StoreUnavailable."""
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._gateway is None:
                if self._failed is not None and time.monotonic() - self._failed[0] < _OPEN_AGAIN_SECONDS:
                    raise self._failed[1]
                stack = AsyncExitStack()
                self.draining.clear()
                opening = open_gateway(
                    self._settings,
                    self.draining,
                    connect=self._connect,
                    resolve=self._resolve,
                    worker=self._worker,
                )
                try:
                    self._gateway = await stack.enter_async_context(opening)
                except (SettingsError, StoreUnavailable) as error:
                    self._failed = time.monotonic(), error
                    raise
                self._stack = stack
            return self._gateway

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        id = request_id(headers)
        discard = _DISCARD_BODIES * self._settings.max_body
        wire = Wire(receive, self._marked(scope, send, id), discard, head=scope["method"] == "HEAD")
        http = Http(scope, wire.receive, wire.send, headers, id)
        path = _path(scope)
        try:
            await self._route(http, path)
        except ClientLeft:
            pass
        except GatewayError as error:
            if not wire.started:
                await self._refuse(http, path, error)
                return
            log_refusal(http, error)
            if not wire.finished:
                raise  # the server cuts the connection: half an answer must not look whole
        except Exception:
            log.exception("a request failed")
            if wire.finished:
                return
            if wire.started:
                raise
            await self._refuse(http, path, GatewayError("The gateway failed here; its log has the cause."))

    async def _route(self, http: Http, path: str) -> None:
        if path == "/healthz":
            await health.healthz(http)
            return
        if http.method in ("GET", "HEAD") and path in welcome.QUIET:
            await welcome.quiet(http, path)
            return
        if path in no_oauth.ADDRESSES:
            await no_oauth.serve(http)
            return
        gateway = await self._ready(http, path)
        if gateway is None:
            return
        if path == "/metrics":
            await self._metrics(gateway, http)
            return
        self._doors.check_host(http.headers.get("host"))
        if any(gateway.identity in passed for passed in http.headers.getlist("via")):
            raise LoopDetected
        if path == "/v1/mcp/registry.json" or path == "/v0.1/servers" or path.startswith("/v0.1/servers/"):
            self._check_enabled()
            if http.method == "OPTIONS":
                await send_empty(http.send, 204, registry.CORS)
                return
            await registry.serve(gateway, http, _principal(gateway, http), path)
            return
        self._doors.check_origin(http.headers.get("origin"))
        if path.startswith("/.well-known/"):
            raise NotFound("There is nothing here: this gateway takes a key, not OAuth.")
        if path == "/" and http.method in ("GET", "HEAD") and "text/html" in accepted(http.headers):
            await welcome.page(http, self._settings)
            return
        self._check_enabled()
        principal = _principal(gateway, http)
        gateway.telemetry.in_flight.inc()
        try:
            with nullcontext() if http.method in ("GET", "HEAD") else gateway.admission.request(principal):
                await self._serve(gateway, http, principal, path)
        finally:
            gateway.telemetry.in_flight.dec()

    async def _serve(self, gateway: Gateway, http: Http, who: Principal, path: str) -> None:
        match path.split("/")[1:]:
            case ["mcp"]:
                await endpoint.serve(gateway, http, who, Address(None))
            case ["mcp", "servers", name, "mcp"]:
                await endpoint.serve(gateway, http, who, Address(name))
            case ["sse"]:
                await legacy.serve_stream(gateway, http, who)
            case ["messages"]:
                await legacy.serve_message(gateway, http, who)
            case ["mcp", "tools", "call"]:
                await admin.tools_call(gateway, http, who)
            case ["rpc"]:
                if http.method != "POST":
                    raise MethodNotAllowed(http.method, ("POST",))
                await endpoint.rpc(gateway, http, who, "rpc")
            case ["mcp", "servers"]:
                await admin.servers(gateway, http, who)
            case ["mcp", "servers", name, "refresh"]:
                await admin.refresh(gateway, http, who, name)
            case ["mcp", "servers", name]:
                await admin.server(gateway, http, who, name)
            case ["mcp", "tools" | "resources" | "prompts" as kind]:
                await lists.serve(gateway, http, who, kind)
            case ["mcp", "resources", "read"]:
                await admin.resources_read(gateway, http, who)
            case ["mcp", "prompts", "get"]:
                await admin.prompts_get(gateway, http, who)
            case ["openapi.json"] if http.method in ("GET", "HEAD"):
                await send_json(http.send, openapi.document(http.base_url(self._settings.public_url)))
            case _:
                raise NotFound(f"There is nothing at {path[:200]}; the README lists the addresses.")

    async def _ready(self, http: Http, path: str) -> Gateway | None:
        """The open gateway; `/readyz` is answered here, open or not. Raises NotReady."""
        gateway, reason = self._gateway, None
        if gateway is None:
            try:
                gateway = await self._open()
            except (SettingsError, StoreUnavailable) as error:
                reason = _cause(error)
        if path == "/readyz":
            await health.readyz(gateway, http, reason, leaving=self.leaving)
            return None
        if gateway is None:
            raise NotReady(f"The gateway is not ready: {reason}")
        return gateway

    async def _metrics(self, gateway: Gateway, http: Http) -> None:
        """The figures, for a scraper that reaches each replica by its own address: any Host will do."""
        if self._settings.metrics == "off":
            raise NotFound("The figures are switched off here (GATEWAY_METRICS).")
        if http.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(http.method, ("GET", "HEAD"))
        if self._settings.metrics == "key":
            query: bytes = http.scope.get("query_string", b"")
            gateway.authenticator.check_metrics(http.headers.getlist("authorization"), query)
        await health.metrics(gateway, http)

    def _check_enabled(self) -> None:
        if not self._settings.enabled:
            raise GatewayDisabled

    async def _refuse(self, http: Http, path: str, error: GatewayError) -> None:
        """Answer a refusal at the door in the protocol of the address."""
        log_refusal(http, error)
        cors = registry.CORS if path.startswith(("/v1/mcp/", "/v0.1/")) else ()
        parts = path.split("/")
        speaks_rpc = path in ("/mcp", "/rpc") or (len(parts) == 5 and path.endswith("/mcp"))
        if speaks_rpc and not isinstance(error, GatewayDisabled):
            await send_failure(http.send, error, headers=cors)
        else:
            await send_problem(http.send, error, headers=cors)

    def _marked(self, scope: Scope, send: Send, id: str) -> Send:
        """Say the request's id with the answer; on the way out ask for no further request on this connection.

        Connection is a header of HTTP/1 (RFC 9113, 8.2.2 forbids it in HTTP/2).
        """
        added = [(b"x-request-id", id.encode())]
        is_http_1 = scope.get("http_version", "1.1").startswith("1")

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                closing = [(b"connection", b"close")] if self.draining.is_set() and is_http_1 else []
                message = {**message, "headers": [*message["headers"], *added, *closing]}
            await send(message)

        return marked


def create_app(settings: Settings | None = None) -> Application:
    """Make the ASGI application; without settings they come from the environment. Raises SettingsError."""
    settings = settings or Settings.from_environment(os.environ)
    for name, value in (
        ("GATEWAY_MASTER_KEY", settings.master_key),
        ("DATABASE_URL", settings.database_url),
        ("REDIS_URL", settings.redis_url),
    ):
        if value is None:
            raise SettingsError(f"{name}: not set, and create_app() runs no store and knows no key of its own.")
    return Application(settings)


@functools.cache
def _from_environment() -> Application:
    return create_app()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve with settings from the environment, read on first use: `hypercorn gateway.asgi:app`."""
    try:
        application = _from_environment()
    except SettingsError as error:
        if scope["type"] != "lifespan":
            raise
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await application(scope, receive, send)


def _principal(gateway: Gateway, http: Http) -> Principal:
    query: bytes = http.scope.get("query_string", b"")
    return gateway.authenticator.identify(http.headers.getlist("authorization"), query)


def _path(scope: Scope) -> str:
    """The path below the mount point, without a trailing slash; an encoded slash stays encoded."""
    raw_path = scope.get("raw_path")
    path: str = scope["path"]
    if raw_path and b"%2f" in raw_path.lower():
        encoded = raw_path.partition(b"?")[0].decode("latin-1")
        path = "/".join(unquote(part).replace("/", "%2F") for part in encoded.split("/"))
    root = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return path.rstrip("/") or "/"


def _cause(error: Exception) -> str:
    """One line that says why we can't start."""
    said = error.__cause__
    if isinstance(error, StoreUnavailable):  # its own words are for a gateway that runs
        error = SettingsError("DATABASE_URL: the registry's database does not answer")
    return f"{error}" if said is None else f"{error} ({type(said).__name__}: {str(said).splitlines()[0][:300]})"
