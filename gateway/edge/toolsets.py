"""The REST face of toolsets: the live list, and one of them. What stands below one is served as at the aggregate."""

from __future__ import annotations

from typing import Any

from gateway.edge import lists
from gateway.edge.request import Http
from gateway.edge.rest import as_object, manage, read_body, read_fields
from gateway.errors import InvalidParams
from gateway.methods.services import Gateway
from gateway.model.principals import Principal
from gateway.protocol.messages import parse

_ONE = {
    "GET": "mcp.toolsets.get",
    "HEAD": "mcp.toolsets.get",
    "PUT": "mcp.toolsets.replace",
    "PATCH": "mcp.toolsets.update",
    "DELETE": "mcp.toolsets.remove",
}


async def toolsets(gateway: Gateway, http: Http, principal: Principal) -> None:
    """The live list of toolsets, and a new one: 200, also for the very same one again."""
    if http.method != "POST":
        await lists.serve(gateway, http, principal, kind="toolsets")
        return
    fields = await read_fields(gateway, http, principal, "toolsets")
    if fields is not None:
        await manage(gateway, http, principal, "mcp.toolsets.create", fields)


async def toolset(gateway: Gateway, http: Http, principal: Principal, slug: str) -> None:
    """One toolset: show, create or replace, change, remove."""
    http.accepts()
    fields: dict[str, Any] = {}
    if http.method in ("PUT", "PATCH"):
        fields = as_object(parse(await read_body(gateway, http)))
    if fields.pop("slug", slug) != slug:
        raise InvalidParams("The slug in the body is not the one in the address.", "slug")
    await manage(gateway, http, principal, _ONE[http.method], {**fields, "slug": slug})
