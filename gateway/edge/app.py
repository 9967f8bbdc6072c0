"""The ASGI callable: one hand-routed match, the doors, the lifespan.

Read from `Application.__call__` down: a request is matched (`routes`), passes the doors, and is served by the route's
handler. Whatever is refused on the way is raised, and answered in one place. Works below any `root_path`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.types import Receive, Scope, Send

from gateway.access.limits import key_ended
from gateway.edge import health, registry_documents, welcome
from gateway.edge.assembly import open_gateway
from gateway.edge.doors import Doors
from gateway.edge.page import files
from gateway.edge.page.sign_in import page_principal
from gateway.edge.request import Http, Protocol, Surroundings
from gateway.edge.response import log_refusal, send_empty, send_failure, send_problem
from gateway.edge.routes import PATHS, Door, Route, match
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
    TooManyFields,
)
from gateway.methods.services import Gateway
from gateway.model.principals import require_role
from gateway.net.dialer import Resolve
from gateway.settings import Settings
from gateway.upstream.factory import Connect

_OPEN_AGAIN_SECONDS = 1.0
_LET_IN = 1000  # pairs of Host and Origin that were checked, kept
_DISCARD_BODIES = 16  # times GATEWAY_MAX_BODY: what is read of a refused body, so that the refusal arrives

_KEY, _SIGN_IN = Door.KEY, Door.SIGN_IN  # by a name of their own: a member's takes four times as long
_READS = ("GET", "HEAD")

log = logging.getLogger("gateway.asgi")


class Application:
    """One gateway as an ASGI 3 application; `async with app.lifespan():` where the host runs none."""

    def __init__(
        self,
        settings: Settings,
        *,
        connect: Connect | None = None,
        resolve: Resolve | None = None,
        worker: str | None = None,
    ) -> None:
        settings.check()
        self._settings = settings
        self._doors = Doors.of(settings)
        self._let_in: set[tuple[bytes | None, bytes | None]] = set()
        self._connect = connect
        self._resolve = resolve
        self._worker = worker
        self._gateway: Gateway | None = None
        self._opening: asyncio.Lock | None = None
        self._stack: AsyncExitStack | None = None
        self._failed: tuple[float, Exception] | None = None
        self.draining = asyncio.Event()
        self._around: Surroundings | None = None
        self.leaving = False
        """Whether a drain is about to begin: `/readyz` says so, everything is served as before."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            around = self._around
            if around is None:  # made where the loop runs
                around = self._around = Surroundings(self.draining, _DISCARD_BODIES * self._settings.max_body)
            http = Http(scope, receive, send, around)
            try:
                await self._serve(http)
            except ClientLeft:
                pass
            except Exception as error:
                await self._failed_with(http, error)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": "MCP has no WebSocket transport"})

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[Application]:
        """Open the gateway for the time of the block."""
        await self._open()
        try:
            yield self
        finally:
            await self.close()

    @property
    def gateway(self) -> Gateway | None:
        """The parts that requests are answered with, while the gateway is open."""
        return self._gateway

    async def close(self) -> None:
        """End streams and close everything; a later request opens it anew."""
        self.draining.set()
        stack, self._stack, self._gateway, self._around = self._stack, None, None, None
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
        """Open once; requests shortly after a failure get the same failure. Raises SettingsError, StoreUnavailable."""
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

    async def _serve(self, http: Http) -> None:
        """Let a request in, and have it served. Raises GatewayError for whatever is refused."""
        params: tuple[str, ...] = ()
        route = PATHS.get(http.path)
        if route is None:
            route, params = match(http.path)
        if route is not None:
            http.protocol = route.protocol
        gateway, settings = self._gateway, self._settings
        if gateway is None or (route is not None and route.door is not _KEY):
            gateway = await self._serve_without_key(http, route)
            if gateway is None:
                return
        headers = http.headers
        values = headers.values
        if len(headers.raw) > settings.max_fields:
            raise TooManyFields(settings.max_fields)
        if headers.is_repeated or (values.get(b"host"), values.get(b"origin")) not in self._let_in:
            self._check_names(http)
        if b"via" in values and gateway.identity in ",".join(headers.all(b"via")):
            raise LoopDetected
        if route is None:
            await self._refuse_path(gateway, http)
            return
        if not settings.enabled:
            raise GatewayDisabled
        method = http.method
        if method == "OPTIONS" and route.protocol is Protocol.REGISTRY:
            await send_empty(http, 204, registry_documents.CORS)
            return
        if route.door is _SIGN_IN:
            await route.handler(gateway, http)
            return
        principal = gateway.authenticator.known(headers, http.query)
        if principal is None and b"cookie" in values and b"authorization" not in values:
            principal = await page_principal(gateway, http)
        if principal is None:
            principal = await gateway.authenticator.identify(headers, http.query)
        if route.methods is not None and method not in route.methods:
            raise MethodNotAllowed(method, route.methods)
        who, guard = principal.id, http.guard
        under_way = gateway.admission.reads if method in _READS else gateway.admission.calls
        under_way.enter(who, guard)
        try:
            if params:
                await route.handler(gateway, http, principal, *params)
            else:
                await route.handler(gateway, http, principal)
        except asyncio.CancelledError:
            if (ended := key_ended(guard)) is not None:
                raise ended from None
            raise
        finally:
            under_way.leave(who, guard)

    async def _serve_without_key(self, http: Http, route: Route | None) -> Gateway | None:
        """Serve an address that needs no key, and open the gateway for one that does: then it is returned.

        Raises NotReady.
        """
        door = Door.KEY if route is None else route.door
        is_taken = route is None or route.methods is None or http.method in route.methods
        if route is not None and not is_taken and door in (Door.OPEN, Door.METRICS, Door.SIGN_IN):
            raise MethodNotAllowed(http.method, route.methods or ())
        if route is not None and door is Door.OPEN:
            await route.handler(http, self._settings)
            return None
        gateway = await self._ready(http, door)
        if gateway is not None and door is Door.METRICS:
            await self._metrics(gateway, http)
            return None
        return gateway

    async def _refuse_path(self, gateway: Gateway, http: Http) -> None:
        """Nothing is here: for a browser at the root a page says where things are. Raises NotFound."""
        if http.path.startswith("/.well-known/"):
            raise NotFound("There is nothing here: this gateway takes a key, not OAuth.")
        if http.path == "/" and "text/html" in http.accepted() and http.method in ("GET", "HEAD"):
            if self._settings.page and self._settings.enabled:
                await files.index(http, self._settings)
            else:
                await welcome.page(http, self._settings)
            return
        if not self._settings.enabled:
            raise GatewayDisabled
        await gateway.authenticator.identify(http.headers, http.query)
        raise NotFound(f"There is nothing at {http.path[:200]}; docs/reference.rst lists the addresses.")

    async def _failed_with(self, http: Http, error: Exception) -> None:
        """Answer what ended a request; raised again where half an answer is out, which must not look whole."""
        if isinstance(error, GatewayError):
            shown = error
            log_refusal(http, error)
        else:
            shown = GatewayError("The gateway failed here; its log has the cause.")
            log.exception("a request failed")
        if not http.started:
            await self._refuse(http, shown)
        elif not http.finished:
            raise error  # the server cuts the connection

    def _check_names(self, http: Http) -> None:
        """Refuse other hosts, and pages of other origins. The registry's documents are for every page (CORS)."""
        host, origin = http.headers.raw_value(b"host"), http.headers.raw_value(b"origin")
        named = None if host is None else host.decode("latin-1")
        self._doors.check_host(named)
        if http.protocol is not Protocol.REGISTRY:
            self._doors.check_origin(None if origin is None else origin.decode("latin-1"), named)
            if len(self._let_in) < _LET_IN:
                self._let_in.add((host, origin))

    async def _ready(self, http: Http, door: Door) -> Gateway | None:
        """The open gateway; `/readyz` is answered here, open or not. Raises NotReady."""
        gateway, reason = self._gateway, None
        if gateway is None:
            try:
                gateway = await self._open()
            except (SettingsError, StoreUnavailable) as error:
                reason = _cause(error)
        if door is Door.READY:
            await health.readyz(gateway, http, reason, leaving=self.leaving)
            return None
        if gateway is None:
            raise NotReady(f"The gateway is not ready: {reason}")
        return gateway

    async def _metrics(self, gateway: Gateway, http: Http) -> None:
        """The figures, for a scraper that reaches each replica by its own address: any Host will do."""
        if self._settings.metrics == "off":
            raise NotFound("The figures are switched off here (GATEWAY_METRICS).")
        if self._settings.metrics == "key":
            principal = await gateway.authenticator.check_metrics(http.headers, http.query)
            if principal is not None:
                require_role(principal, "operator", "read the figures")
        await health.metrics(gateway, http)

    async def _refuse(self, http: Http, error: GatewayError) -> None:
        """Answer a refusal in the protocol that the caller speaks."""
        if http.protocol is Protocol.JSON_RPC and not isinstance(error, GatewayDisabled):
            await send_failure(http, error)
        else:
            await send_problem(http, error, registry_documents.CORS if http.protocol is Protocol.REGISTRY else ())


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


def _cause(error: Exception) -> str:
    """One line that says why we can't start."""
    said = error.__cause__
    if isinstance(error, StoreUnavailable):  # its own words are for a gateway that runs
        error = SettingsError("DATABASE_URL: the registry's database does not answer")
    return f"{error}" if said is None else f"{error} ({type(said).__name__}: {str(said).splitlines()[0][:300]})"
