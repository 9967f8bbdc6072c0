"""The page's files: read once, served with their digests, without a key. Nothing in them is anybody's."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from urllib.parse import urlsplit

from gateway import version
from gateway.edge.request import Http
from gateway.edge.response import send_bytes, send_empty
from gateway.errors import NotFound
from gateway.settings import Settings

_TYPES = {
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
    "html": b"text/html; charset=utf-8",
}
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    b"media-src data: blob:; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
)


async def index(http: Http, settings: Settings) -> None:
    """The page itself, with the path that it is mounted at."""
    root = root_of(http, settings)
    said = {"root": root, "base": http.base_url(settings.public_url), "version": version.VERSION}
    text = _text("index.html")
    for name, value in said.items():
        text = text.replace(f"{{{name}}}", escape(value, quote=True))
    await _send(http, text.encode(), _TYPES["html"])


async def serve(http: Http, settings: Settings) -> None:
    """One file below `/page/`. Raises NotFound."""
    name = http.path.removeprefix("/page/")
    known = _names()
    if not (settings.page and settings.enabled) or name not in known:
        raise NotFound("There is no such file of the page.")
    await _send(http, _bytes(name), _TYPES[name.rpartition(".")[2]])


def root_of(http: Http, settings: Settings) -> str:
    """The path below which clients reach this gateway, without a slash at its end."""
    return urlsplit(http.base_url(settings.public_url)).path.rstrip("/")


async def _send(http: Http, body: bytes, kind: bytes) -> None:
    tag = b'"%s"' % sha256(body).hexdigest()[:24].encode()
    if http.headers.values.get(b"if-none-match") == tag:
        await send_empty(http, 304, [(b"etag", tag), *_HEADERS])
        return
    await send_bytes(http, 200, body, kind, [(b"etag", tag), *_HEADERS])


@cache
def _names() -> frozenset[str]:
    """The files that are served."""
    static = files(__package__) / "static"
    folders = [("", static), ("vendored/", static / "vendored"), ("views/", static / "views")]
    return frozenset(
        f"{prefix}{each.name}"
        for prefix, folder in folders
        if folder.is_dir()
        for each in folder.iterdir()
        if each.name.rpartition(".")[2] in ("css", "js", "svg")
    )


@cache
def _bytes(name: str) -> bytes:
    return (files(__package__) / "static").joinpath(*name.split("/")).read_bytes()


@cache
def _text(name: str) -> str:
    return _bytes(name).decode()
