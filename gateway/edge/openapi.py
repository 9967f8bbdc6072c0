"""The OpenAPI 3.1 document of the REST faces, served at `/openapi.json`. What it promises, schemathesis tries."""

from __future__ import annotations

from gateway import version
from gateway.edge.openapi_schemas import (
    ACCESS,
    AUDIT_QUERY,
    CHANGES,
    EVENT,
    IMPORT,
    IMPORTED,
    ITEMS,
    KEY,
    KEY_ID,
    KEY_SPEC,
    NAME,
    NEW_KEY,
    PLACES,
    PREVIEW,
    PREVIEWED,
    PROBLEM,
    REGISTERED,
    RESULT,
    ROWS,
    RPC,
    SERVER,
    SLUG,
    SPEC,
    TOOL_CALL,
    TOOLSET,
    TOOLSET_SPEC,
    WHO,
    Json,
)
from gateway.edge.request import Http
from gateway.edge.response import send_json
from gateway.methods.services import Gateway
from gateway.methods.table import METHODS
from gateway.model.principals import ROLES, Principal


def document(base_url: str) -> Json:
    """The document, for a gateway that clients reach at `base_url`."""
    name = {"name": "name", "in": "path", "required": True, "schema": NAME}
    return {
        "openapi": "3.1.0",
        "info": {"title": "MCP micro-gateway", "version": version.VERSION, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": base_url}],
        "security": [{"key": []}],
        "paths": {
            "/mcp/servers": {
                "get": _list("servers"),
                "post": _operation(
                    "Register a server",
                    {**SPEC, "required": ["name"], "anyOf": PLACES, "properties": _named()},
                    SERVER,
                    409,
                    method="mcp.servers.register",
                ),
            },
            "/mcp/servers/{name}": {
                "parameters": [name],
                "get": _operation("Show a server", None, SERVER, 404),
                "put": _operation(
                    "Create or replace a server",
                    {**SPEC, "anyOf": PLACES},
                    SERVER,
                    409,
                    method="mcp.servers.replace",
                ),
                "patch": _operation("Change a server", SPEC, SERVER, 404, 409, method="mcp.servers.update"),
                "delete": _operation("Remove a server", None, RESULT, 404, method="mcp.servers.remove"),
            },
            "/mcp/servers/{name}/refresh": {
                "parameters": [name],
                "post": _operation("Ask a server what it offers", None, SERVER, 404, 409, method="mcp.servers.refresh"),
            },
            **_tool_lock(name),
            **_toolsets(),
            "/mcp/import": {
                "post": _operation("Take another product's servers", IMPORT, IMPORTED, method="mcp.servers.import")
            },
            "/mcp/openapi/preview": {
                "post": _operation(
                    "The tools that an OpenAPI document would give",
                    PREVIEW,
                    PREVIEWED,
                    404,
                    method="mcp.openapi.preview",
                )
            },
            "/mcp/export": {"get": _operation("All registrations", None, RESULT, method="mcp.servers.export")},
            **{f"/mcp/{path}": operations for path, operations in _use().items()},
            "/rpc": {"post": _operation("JSON-RPC 2.0: every method", RPC, {}, 429, no_answer=True)},
            **_keys(),
            "/audit": {
                "get": {
                    **_operation("Who called and changed what, newest first", None, ROWS, 422, method="mcp.audit.list"),
                    "parameters": [
                        {"name": name, "in": "query", "schema": schema} for name, schema in AUDIT_QUERY.items()
                    ],
                }
            },
            "/whoami": {"get": _operation("The caller's own key", None, WHO, method="mcp.whoami")},
            "/v1/mcp/registry.json": {"get": _operation("The registry document", None, _registry())},
            "/v0.1/servers": {"get": _operation("The registry's servers", None, _registry())},
            "/healthz": {"get": _operation("Is the process alive", None, RESULT, open_to_all=True)},
            "/readyz": {"get": _operation("May this worker get requests", None, RESULT, open_to_all=True)},
        },
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _use() -> Json:
    """What is done with tools, resources and prompts, at the aggregate and at a toolset."""
    return {
        **{kind: {"get": _list(kind)} for kind in ("tools", "resources", "prompts")},
        "tools/call": {"post": _operation("Call a tool", TOOL_CALL, _called(), 404, 409, 429, 502, 504, stream=True)},
        "resources/read": {
            "post": _operation("Read a resource", _fields("uri"), RESULT, 404, 429, 502, 504, stream=True)
        },
        "prompts/get": {
            "post": _operation("Get a prompt", _fields("name"), RESULT, 404, 409, 429, 502, 504, stream=True)
        },
    }


def _toolsets() -> Json:
    """The addresses of toolsets."""
    slug: Json = {"name": "slug", "in": "path", "required": True, "schema": SLUG}
    new = {**TOOLSET_SPEC, "required": ["slug"], "properties": {"slug": SLUG, **TOOLSET_SPEC["properties"]}}
    below = {
        f"/mcp/toolsets/{{slug}}/{path}": {
            "parameters": [slug],
            **{
                method: {
                    **operation,
                    "summary": f"{operation['summary']} (of a toolset)",
                    "responses": _may_be_gone(operation),
                }
                for method, operation in operations.items()
            },
        }
        for path, operations in _use().items()
    }
    create, replace, update, remove = (f"mcp.toolsets.{each}" for each in ("create", "replace", "update", "remove"))
    return {
        "/mcp/toolsets": {
            "get": _list("toolsets"),
            "post": _operation("Make a toolset", new, TOOLSET, 409, method=create),
        },
        "/mcp/toolsets/{slug}": {
            "parameters": [slug],
            "get": _operation("Show a toolset", None, TOOLSET, 404),
            "put": _operation("Create or replace a toolset", TOOLSET_SPEC, TOOLSET, method=replace),
            "patch": _operation("Change a toolset", TOOLSET_SPEC, TOOLSET, 404, method=update),
            "delete": _operation("Remove a toolset", None, RESULT, 404, method=remove),
        },
        "/mcp/toolsets/{slug}/rpc": {
            "parameters": [slug],
            "post": _operation("JSON-RPC 2.0: MCP's methods", RPC, {}, 404, 409, 429, no_answer=True),
        },
        **below,
    }


def _may_be_gone(operation: Json) -> Json:
    """The responses of an operation below something that may be unknown or switched off."""
    problem = {"description": "refused", "content": {"application/problem+json": {"schema": PROBLEM}}}
    return {**operation["responses"], "404": problem, "409": problem}


def _tool_lock(name: Json) -> Json:
    """The addresses of the tool lock."""
    asked: list[Json] = [
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
        {"name": "cursor", "in": "query", "schema": {"type": "string"}},
    ]
    chosen: Json = {
        "type": "object",
        "properties": {"tools": {"type": "array", "items": {"type": "string"}}, "digest": {"type": "string"}},
        "additionalProperties": False,
    }
    see, approve, digests = (f"mcp.servers.{each}" for each in ("changes", "approve", "digests"))
    return {
        "/mcp/servers/{name}/changes": {
            "parameters": [name],
            "get": _operation("What it changed since it was approved", None, CHANGES, 404, 422, method=see)
            | {"parameters": asked},
        },
        "/mcp/servers/{name}/approve": {
            "parameters": [name],
            "post": _operation("Approve what it changed", chosen, CHANGES, 404, 409, method=approve),
        },
        "/mcp/servers/{name}/digests": {
            "parameters": [name],
            "get": _operation("Digests of its tools, as a lock file has them", None, RESULT, 404, method=digests),
            "post": _operation("The same, once it was asked", None, RESULT, 404, 409, method=digests),
        },
    }


def _keys() -> Json:
    """The addresses of keys."""
    id: Json = {"name": "id", "in": "path", "required": True, "schema": KEY_ID}
    owner: Json = {"name": "owner", "in": "query", "schema": {"type": "string", "maxLength": 256}}
    asked: list[Json] = [
        {**owner, "name": "name"},
        owner,
        {"name": "role", "in": "query", "schema": {"enum": list(ROLES)}},
        {"name": "sees", "in": "query", "schema": {"type": "string"}, "description": "a tool that they see"},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
        {"name": "cursor", "in": "query", "schema": {"type": "string"}},
    ]
    new = {**KEY_SPEC, "required": ["name"]}
    overlap: Json = {
        "type": "object",
        "properties": {"overlap_seconds": {"type": "integer", "minimum": 0, "maximum": 604_800}},
    }
    as_if: Json = {"type": "object", "properties": {"grants": KEY_SPEC["properties"]["grants"]}}
    ended = {"type": "object", "required": ["keys"]}
    see, method = "What the key sees", "mcp.keys.access"
    return {
        "/keys": {
            "get": {
                **_operation("List keys", None, _listed("keys"), 404, 409, 422, method="mcp.keys.list"),
                "parameters": asked,
            },
            "post": _operation(
                "Make a key; it is shown this once", new, NEW_KEY, 409, method="mcp.keys.create", status=201
            ),
            "delete": {
                **_operation("Revoke all keys of an owner", None, ended, 422, method="mcp.keys.revoke"),
                "parameters": [{**owner, "required": True}],
            },
        },
        "/keys/{id}": {
            "parameters": [id],
            "get": _operation("Show a key", None, KEY, 404, method="mcp.keys.get"),
            "patch": _operation("Change a key", KEY_SPEC, KEY, 404, 409, method="mcp.keys.update"),
            "delete": _operation("Revoke a key", None, KEY, 404, method="mcp.keys.revoke"),
        },
        "/keys/{id}/rotate": {
            "parameters": [id],
            "post": _operation("Give it a new secret", overlap, NEW_KEY, 404, 409, method="mcp.keys.rotate"),
        },
        "/keys/{id}/access": {
            "parameters": [id],
            "get": _operation(see, None, ACCESS, 404, method=method),
            "post": _operation(f"{see} with other grants", as_if, ACCESS, 404, method=method),
        },
    }


def _named() -> Json:
    return {"name": NAME, **SPEC["properties"]}


def _called() -> Json:
    return {
        "type": "object",
        "required": ["server", "tool", "result"],
        "properties": {"server": NAME, "tool": {"type": "string"}, "result": {"type": "object"}},
    }


def _fields(required: str) -> Json:
    return {
        "type": "object",
        "required": [required],
        "properties": {required: {"type": "string"}, "arguments": {"type": "object"}},
    }


def _listed(kind: str) -> Json:
    """A list of a kind; of resources also their templates."""
    lists = {kind: ITEMS[kind]} | ({"resourceTemplates": ITEMS["resourceTemplates"]} if kind == "resources" else {})
    return {
        "type": "object",
        "required": list(lists),
        "properties": {
            **{name: {"type": "array", "items": each} for name, each in lists.items()},
            "revision": {"type": "integer", "description": "of the registry"},
            "next_cursor": {"type": ["string", "null"], "description": "where there are more"},
            "tokens": {"type": "object", "description": "where asked for: estimated, by mode and server"},
        },
    }


def _registry() -> Json:
    """The registry document."""
    return {
        "type": "object",
        "required": ["servers", "metadata"],
        "properties": {"servers": {"type": "array", "items": REGISTERED}, "metadata": {"type": "object"}},
    }


def _list(kind: str) -> Json:
    accept = {"name": "Accept", "in": "header", "schema": {"enum": ["application/json", "*/*"]}}

    def asked(name: str, schema: Json, text: str) -> Json:
        return {"name": name, "in": "query", "schema": schema, "description": text}

    word: Json = {"type": "string", "maxLength": 200}
    query = [
        asked("server", word, "only this server's; may be repeated"),
        asked("tag", word, "only of servers with this tag; may be repeated"),
        asked("q", word, "words that stand in name, title, description or URI"),
        asked("limit", {"type": "integer", "minimum": 1, "maximum": 10_000}, "items of a page (JSON only)"),
        asked("cursor", word, "`next_cursor` of the page before (JSON only)"),
        asked("tokens", {"enum": ["true", "false"]}, "of tools and toolsets: what they take of a model's context"),
    ]
    return _operation(f"List {kind}; text/event-stream stays open", None, _listed(kind), 422, stream=True) | {
        "parameters": [accept, *query]
    }


def _operation(
    summary: str,
    body: Json | None,
    answer: Json,
    *problems: int,
    stream: bool = False,
    no_answer: bool = False,
    open_to_all: bool = False,
    method: str = "",
    status: int = 200,
) -> Json:
    """One operation; `method` is ours that it carries out, and says which role may."""
    content: Json = {"application/json": {"schema": answer}}
    if stream:
        content["text/event-stream"] = {"schema": EVENT}
    responses: Json = {str(status): {"description": "done", "content": content}}
    if no_answer:
        responses["202"] = {"description": "a notification was taken"}
    expected = {400, 401, 403, 406, 413, *problems} | ({422} if body else set())
    if not open_to_all:
        for status in sorted(expected):
            media_type = "application/json" if no_answer else "application/problem+json"
            schema = {} if no_answer else PROBLEM
            responses[str(status)] = {"description": "refused", "content": {media_type: {"schema": schema}}}
    operation: Json = {"summary": summary, "responses": responses}
    needed = METHODS["rest"][method].needs if method else None
    if needed is not None:
        operation |= {"x-role": needed[0], "description": f"Needs a key with the role {needed[0]!r}."}
    if open_to_all:
        operation["security"] = []
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


async def serve(gateway: Gateway, http: Http, principal: Principal) -> None:
    """The REST faces as an OpenAPI 3.1 document."""
    await send_json(http, document(http.base_url(gateway.settings.public_url)))
