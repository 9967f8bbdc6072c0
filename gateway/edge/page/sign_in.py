"""Signing in to the page: a key is sent once, and a cookie stands for it in this browser.

The cookie counts only where the browser says that the gateway's own page sent the request, by every method, and for
writes with a header that no other page can send. So another site can neither use it nor read what it brings.
"""

from __future__ import annotations

from hashlib import sha256

from gateway.edge.page.files import root_of
from gateway.edge.request import Http
from gateway.edge.response import send_empty, send_json
from gateway.edge.rest import as_object
from gateway.errors import Forbidden, InvalidParams, NotFound, StoreUnavailable, Unauthorized
from gateway.methods.services import Gateway
from gateway.model.principals import Principal
from gateway.protocol.headers import Headers
from gateway.protocol.messages import parse
from gateway.sessions.page_sessions import SECONDS

_CSRF = b"x-gateway-page"
_READS = ("GET", "HEAD")
_MAX_BODY = 8 << 10
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


async def session(gateway: Gateway, http: Http) -> None:
    """`POST {"key": "…"}` opens a session (204, with its cookie); GET tells whether there is one; DELETE ends it."""
    if not gateway.settings.page:
        raise NotFound("The page is switched off here (GATEWAY_PAGE).")
    _check_page(http, gateway)
    if http.method in _READS:
        try:
            signed_in = await page_principal(gateway, http) is not None
        except Unauthorized:  # its key has expired
            signed_in = False
        await send_json(http, {"signed_in": signed_in}, headers=[(b"cache-control", b"no-store")])
        return
    name, is_secure = _cookie(http, gateway)
    attributes = f"; Path=/; HttpOnly; SameSite=Strict{'; Secure' if is_secure else ''}"
    if http.method == "DELETE":
        ended = (b"set-cookie", f"{name}=; Max-Age=0{attributes}".encode())
        try:
            if (id := _value(http, name)) is not None:
                await gateway.page_sessions.end(id)
        except StoreUnavailable:
            told = {"detail": "This browser is signed out. The end could not be recorded: the database is away."}
            await send_json(http, told, 202, headers=[ended])
            return
        await send_empty(http, 204, [ended, (b"cache-control", b"no-store")])
        return
    # the browser's own word: a proxy that ends TLS need not tell us of it
    if is_secure and http.headers.values.get(b"origin", b"").startswith(b"http://"):
        raise Forbidden("Over plain HTTP a browser keeps no session, except of localhost. Open the page by HTTPS.")
    id = await _open(gateway, http)
    cookie = (b"set-cookie", f"{name}={id}; Max-Age={SECONDS}{attributes}".encode())
    await send_empty(http, 204, [cookie, (b"cache-control", b"no-store")])


async def _open(gateway: Gateway, http: Http) -> str:
    who = _origin_of(http)
    gateway.page_sessions.attempts.check(who)
    fields = as_object(parse(await http.read_body(_MAX_BODY, gateway.settings.body_seconds)))
    key = fields.get("key")
    if fields.keys() != {"key"} or not isinstance(key, str) or not key.strip():
        raise InvalidParams('Send the key as {"key": "…"}.', "key")
    key = key.strip()
    try:
        value = f"Bearer {key}".encode("latin-1")
        principal = await gateway.authenticator.identify(Headers([(b"authorization", value)]), b"")
    except (Unauthorized, UnicodeEncodeError) as error:
        gateway.page_sessions.attempts.failed(who)
        if isinstance(error, Unauthorized):
            raise
        raise Unauthorized("This key is none of this gateway's.", wrong=True) from None
    return gateway.page_sessions.open(principal, key)


async def page_principal(gateway: Gateway, http: Http) -> Principal | None:
    """Whose session the request's cookie is of; None if it has none, or it does not count. Raises Forbidden."""
    name, _ = _cookie(http, gateway)
    id = _value(http, name)
    if id is None or not gateway.settings.page or not _is_own(http, gateway):
        return None
    principal = await gateway.page_sessions.find(id)
    if principal is not None:
        _check_page(http, gateway)
    return principal


def _check_page(http: Http, gateway: Gateway) -> None:
    """Let a request pass that the page itself sent; reads need no header of their own. Raises Forbidden."""
    if not _is_own(http, gateway):
        raise Forbidden("Signing in, and what a session sends, is for the gateway's own page.")
    if http.method not in _READS and _CSRF not in http.headers.values:
        raise Forbidden("A write of the page needs the header X-Gateway-Page.")


def _is_own(http: Http, gateway: Gateway) -> bool:
    """Whether the browser says that a page of this very origin sent the request."""
    values = http.headers.values
    if (site := values.get(b"sec-fetch-site")) is not None:
        return bool(site == b"same-origin")
    host, origin = values.get(b"host", b""), values.get(b"origin")
    return origin is not None and origin.lower() == f"{_scheme(http, gateway)}://".encode() + host.lower()


def _cookie(http: Http, gateway: Gateway) -> tuple[str, bool]:
    """The cookie's name, and whether it is for HTTPS only: over HTTP it is taken on loopback alone.

    Browsers keep cookies by host, so that the name tells ports and mount points apart.
    """
    host = http.headers.get(b"host", "localhost")
    bare, _, port = host.rpartition(":") if host.rpartition(":")[2].isdigit() else (host, "", "")
    mark = sha256(f"{port} {root_of(http, gateway.settings)}".encode()).hexdigest()[:8]
    if _scheme(http, gateway) == "http" and bare.lower() in _LOOPBACK:
        return f"mgw-page-{mark}", False
    return f"__Host-mgw-page-{mark}", True


def _scheme(http: Http, gateway: Gateway) -> str:
    return http.base_url(gateway.settings.public_url).partition(":")[0]


def _value(http: Http, name: str) -> str | None:
    """The cookie's value. Of two none counts: on loopback programs at other ports can set one as well."""
    pairs = (pair.strip().partition("=") for cookies in http.headers.all(b"cookie") for pair in cookies.split(";"))
    values = [value for found, _, value in pairs if found == name]
    return values[0] or None if len(values) == 1 else None


def _origin_of(http: Http) -> str:
    """Where a request comes from, as far as it can be told: the last address that a proxy added, else the peer's."""
    peer = http.scope.get("client") or ("", 0)
    forwarded = ",".join(http.headers.all(b"x-forwarded-for")).rpartition(",")[2].strip()[:64]
    return f"{peer[0]} {forwarded}"
