"""What OAuth's addresses answer: that this gateway takes a key.

A client that gets a 401 begins a sign-in: it looks for metadata (404 here), then registers itself at `/register` of the
same origin. If that answers 401 as well, mcp-remote and the Inspector wait for a browser that never comes. An OAuth
error that names the key ends them, and they show its text. Sources: RFC 7591, 3.2.2; RFC 6749, 5.2; RFC 6750, 3.
"""

from __future__ import annotations

from gateway.edge.request import Http
from gateway.edge.response import send_json
from gateway.settings import Settings

_ANSWER = {
    "error": "access_denied",
    "error_description": (
        "This gateway has no sign-in (OAuth): it takes a key. The key was missing or wrong. Send the header "
        "'Authorization: Bearer <key>' with a key of this gateway's, then connect again."
    ),
}


async def serve(http: Http, settings: Settings) -> None:
    """Refuse a sign-in: there is none, a key is needed.

    No word of the answer may be one that clients take for a challenge (401).
    """
    await send_json(http, _ANSWER, 403, [(b"cache-control", b"no-store")])
