"""Whether a server lists what a caller names at the server's own address (GATEWAY_UNLISTED=refuse).

A name that the registry knows passes. Any other is looked for in the server's own list first, over the caller's session
with it, since a server may show each session other tools, and add some in mid-session. Callers share a look, and there
is one every two seconds at most; what it does not find is refused, and never sent.
"""

from __future__ import annotations

from gateway.errors import UnknownPrompt, UnknownTool, UpstreamFailure, UpstreamProtocolError
from gateway.methods.call import Call
from gateway.methods.looks import Names
from gateway.model.kinds import KINDS
from gateway.model.names import near
from gateway.model.server import Server
from gateway.protocol.messages import Failure, Request

_MAX_PAGES = 50
_MAX_LETTERS = 1 << 20  # of all names of one list
_UNKNOWN = {"tools": UnknownTool, "prompts": UnknownPrompt}


async def check_listed(call: Call, server: Server, kind: str, name: object) -> None:
    """Let a name pass that a server lists. Raises UnknownTool, UnknownPrompt or UpstreamError."""
    known = server.names.get(kind, {})
    if name in known or not isinstance(name, str) or call.gateway.settings.unlisted == "forward":
        return
    key = server.spec.fingerprint, kind, call.session.key if call.session is not None else ""
    names = await call.gateway.looks.names(key, lambda: _list(call, server, kind))
    if name not in names:
        error = _UNKNOWN[kind](name)
        error.suggest(near(name, names | known.keys()))
        raise error


async def _list(call: Call, server: Server, kind: str) -> Names:
    """The names of a server's list, as the caller's session sees it."""
    what, names, cursor, letters = KINDS[kind], set[str](), None, 0
    for _ in range(_MAX_PAGES):
        request = Request(0, what.method, {} if cursor is None else {"cursor": cursor})
        if call.session is not None:
            answer = await call.session.ask(server, request)
        else:
            answer = await call.gateway.pool[server].call_shared(request)
        if isinstance(answer, Failure):
            raise UpstreamFailure(server.name, answer.code, answer.message, answer.data)
        result = answer.result if isinstance(answer.result, dict) else {}
        items = result.get(what.key)
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict) and isinstance(found := item.get(what.identity), str):
                names.add(found)
                letters += len(found)
        if letters > _MAX_LETTERS:
            raise UpstreamProtocolError(server.name, f"Server {server.name!r} lists too much with {what.method}.")
        before, cursor = cursor, result.get("nextCursor")
        if not isinstance(cursor, str) or cursor == before:
            break
    return frozenset(names)
