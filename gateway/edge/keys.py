"""The REST face of keys (`/keys`, `/keys/{id}`, what a key sees, `/whoami`) and of the audit."""

from __future__ import annotations

from typing import Any

from gateway.edge.request import Http
from gateway.edge.rest import as_object, manage, optional_fields, query_fields, read_body, read_fields
from gateway.errors import BadQuery, InvalidParams
from gateway.methods.services import Gateway
from gateway.model.principals import Principal
from gateway.protocol.messages import parse

_ONE = {"GET": "mcp.keys.get", "HEAD": "mcp.keys.get", "PATCH": "mcp.keys.update", "DELETE": "mcp.keys.revoke"}


async def keys(gateway: Gateway, http: Http, principal: Principal) -> None:
    """List keys, make one (201; its text is in this answer alone), or end all of an owner (`DELETE ?owner=…`)."""
    if http.method == "POST":
        fields = await read_fields(gateway, http, principal, "keys")
        if fields is not None:
            await manage(gateway, http, principal, "mcp.keys.create", fields, 201)
        return
    http.accepts()
    query = query_fields(
        http, ("owner",) if http.method == "DELETE" else ("name", "owner", "role", "sees", "limit", "cursor")
    )
    if http.method == "DELETE":
        if "owner" not in query:
            raise BadQuery("Say whose keys are to end: DELETE /keys?owner=NAME, or DELETE /keys/{id} for one.", "owner")
        await manage(gateway, http, principal, "mcp.keys.revoke", query)
    else:
        await manage(gateway, http, principal, "mcp.keys.list", query)


async def key(gateway: Gateway, http: Http, principal: Principal, id: str) -> None:
    """One key: show, change, revoke."""
    http.accepts()
    fields: dict[str, Any] = {}
    if http.method == "PATCH":
        fields = as_object(parse(await read_body(gateway, http)))
    await manage(gateway, http, principal, _ONE[http.method], _with_id(fields, id))


async def rotate(gateway: Gateway, http: Http, principal: Principal, id: str) -> None:
    """Give a key a new secret: `{"overlap_seconds": 3600}`, or no body."""
    await manage(gateway, http, principal, "mcp.keys.rotate", _with_id(await optional_fields(gateway, http), id))


async def access(gateway: Gateway, http: Http, principal: Principal, id: str) -> None:
    """What a key sees; POST `{"grants": …}` shows what it would see with these."""
    fields = await optional_fields(gateway, http) if http.method == "POST" else {}
    await manage(gateway, http, principal, "mcp.keys.access", _with_id(fields, id))


async def audit(gateway: Gateway, http: Http, principal: Principal) -> None:
    """Who called and changed what, newest first, by filters; a user's key gets its own rows."""
    http.accepts()
    known = ("kind", "principal", "key_id", "server", "tool", "outcome", "request_id", "since", "until")
    await manage(gateway, http, principal, "mcp.audit.list", query_fields(http, (*known, "limit", "cursor")))


async def whoami(gateway: Gateway, http: Http, principal: Principal) -> None:
    """The caller's own key."""
    http.accepts()
    await manage(gateway, http, principal, "mcp.whoami", {})


def _with_id(fields: dict[str, Any], id: str) -> dict[str, Any]:
    if fields.pop("id", id) != id:
        raise InvalidParams("The id in the body is not the one in the address.", "id")
    return {**fields, "id": id}
