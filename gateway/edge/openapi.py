"""The OpenAPI 3.1 document of the REST faces, served at `/openapi.json`. What it promises, schemathesis tries."""

from __future__ import annotations

from typing import Any

from gateway import version
from gateway.edge.request import Http
from gateway.edge.response import send_json
from gateway.methods.services import Gateway
from gateway.methods.table import METHODS
from gateway.model.principals import ROLES, Principal
from gateway.model.tool_lock import LOCKS

Json = dict[str, Any]

_RULE_LISTS = ("servers", "tags", "tools", "prompts", "resources", "toolsets")
_PROBLEM: Json = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong and what to do"},
        "field": {"type": "string"},
        "candidates": {"type": "array", "items": {"type": "string"}},
        "retry_after": {"type": "integer", "description": "seconds"},
    },
}
_LIMITS: Json = {
    "type": ["object", "null"],
    "properties": {
        "calls_per_second": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1_000_000},
        "burst": {"type": ["integer", "null"], "minimum": 1, "maximum": 1_000_000},
        "concurrent": {"type": ["integer", "null"], "minimum": 1, "maximum": 100_000},
        "calls_per_day": {"type": ["integer", "null"], "minimum": 1, "maximum": 1_000_000_000},
    },
    "additionalProperties": False,
}
_SPEC: Json = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "maxLength": 2048, "examples": ["http://localhost:9100/mcp"]},
        "title": {"type": ["string", "null"], "maxLength": 200},
        "description": {"type": "string", "maxLength": 4000},
        "transport_type": {"enum": ["http", "streamable_http", "sse", "rest", "stdio"]},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 64},
        "command": {"type": "string", "minLength": 1, "maxLength": 4096, "description": "stdio: what to run"},
        "args": {"type": "array", "items": {"type": "string", "maxLength": 8192}, "maxItems": 256},
        "env": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 256},
        "cwd": {"type": ["string", "null"], "pattern": "^/"},
        "enabled": {"type": "boolean"},
        "prefix": {"type": ["string", "null"], "pattern": "^[A-Za-z0-9._-]{0,63}$"},
        "timeout_seconds": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 86400},
        "validate_arguments": {"type": "boolean"},
        "trust_annotations": {"type": "boolean"},
        "limits": _LIMITS,
        "lock": {"enum": [*LOCKS, None]},
        "tags": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 64}, "maxItems": 64},
        "metadata": {"type": "object"},
    },
}
_PLACES: list[Json] = [{"required": ["url"]}, {"required": ["command"]}]
_NAME: Json = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"}
_SERVER: Json = {
    "type": "object",
    "required": ["name", "server_id", "transport_type", "state", "counts"],
    "properties": {
        "name": _NAME,
        "server_id": _NAME,
        "state": {"enum": ["starting", "ready", "unreachable", "disabled"]},
        "reason": {"type": ["string", "null"]},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
}
_RULES: Json = {
    "type": "array",
    "maxItems": 256,
    "items": {
        "type": "object",
        "minProperties": 1,
        "properties": {
            **{name: {"type": "array", "items": {"type": "string"}} for name in _RULE_LISTS},
            "annotations": {"type": "object", "additionalProperties": {"type": "boolean"}},
        },
        "additionalProperties": False,
    },
}
_KEY_ID: Json = {"type": "string", "pattern": "^[0-9A-Za-z]{12}$"}
_KEY_SPEC: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 128},
        "role": {"enum": list(ROLES)},
        "grants": {
            "type": ["object", "null"],
            "properties": {"allow": _RULES, "deny": _RULES},
            "additionalProperties": False,
        },
        "limits": _LIMITS,
        "owner": {"type": ["string", "null"], "maxLength": 256},
        "tags": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 64}, "maxItems": 64},
        "expires_at": {"type": ["string", "null"], "format": "date-time"},
        "expires_in": {"type": ["integer", "null"], "minimum": 1, "description": "seconds"},
    },
    "additionalProperties": False,
}
_WHO: Json = {
    "type": "object",
    "required": ["id", "name", "role", "grants"],
    "properties": {"id": {"type": "string"}, "name": {"type": "string"}, "role": {"enum": list(ROLES)}},
}
_KEY: Json = {
    **_WHO,
    "required": [*_WHO["required"], "owner", "tags", "created_at", "expires_at", "revoked_at", "last_used_at"],
}
_NEW_KEY: Json = {**_KEY, "required": [*_KEY["required"], "key"]}
_IMPORT: Json = {
    "type": "object",
    "required": ["text"],
    "properties": {
        "text": {"type": "string", "description": "the file: mcp.json, config.yaml, server.json and others"},
        "values": {"type": "object", "additionalProperties": {"type": "string"}},
        "dry_run": {"type": "boolean"},
        "replace": {"type": "boolean"},
        "whole": {"type": "boolean"},
        "only": {"type": "array", "items": {"type": "string"}},
    },
    "additionalProperties": False,
}
_IMPORTED: Json = {
    "type": "object",
    "required": ["format", "servers", "variables", "optional", "notes"],
    "properties": {"servers": {"type": "array", "items": {"type": "object", "required": ["name", "given", "action"]}}},
}
_CHANGES: Json = {
    "type": "object",
    "required": ["server", "lock", "digest", "changes", "flags", "total", "next_cursor"],
    "properties": {key: {"type": "array", "items": {"type": "object"}} for key in ("changes", "flags")},
}
_WORD: Json = {"type": "string", "maxLength": 200}
_AUDIT_QUERY: Json = {
    "kind": {"enum": ["call", "change"]},
    **dict.fromkeys(("principal", "key_id", "server", "tool", "outcome", "request_id"), _WORD),
    **{key: {"type": "string", "format": "date-time"} for key in ("since", "until")},
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
    "cursor": _WORD,
}
_ROWS: Json = {
    "type": "object",
    "required": ["rows", "next_cursor"],
    "properties": {"rows": {"type": "array", "items": {"type": "object"}}},
}
_RPC: Json = {
    "type": "object",
    "required": ["jsonrpc", "method"],
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": ["string", "integer"]},
        "method": {"type": "string"},
        "params": {"type": "object"},
    },
}
_TOOL_CALL: Json = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}, "_meta": {"type": "object"}},
    "additionalProperties": False,
}
_RESULT: Json = {"type": "object"}
_EVENT: Json = {
    "type": "object",
    "required": ["data"],
    "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": {"type": "string"}},
}


def document(base_url: str) -> Json:
    """The document, for a gateway that clients reach at `base_url`."""
    name = {"name": "name", "in": "path", "required": True, "schema": _NAME}
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
                    {**_SPEC, "required": ["name"], "anyOf": _PLACES, "properties": _named()},
                    _SERVER,
                    409,
                    method="mcp.servers.register",
                ),
            },
            "/mcp/servers/{name}": {
                "parameters": [name],
                "get": _operation("Show a server", None, _SERVER, 404),
                "put": _operation(
                    "Create or replace a server",
                    {**_SPEC, "anyOf": _PLACES},
                    _SERVER,
                    409,
                    method="mcp.servers.replace",
                ),
                "patch": _operation("Change a server", _SPEC, _SERVER, 404, 409, method="mcp.servers.update"),
                "delete": _operation("Remove a server", None, _RESULT, 404, method="mcp.servers.remove"),
            },
            "/mcp/servers/{name}/refresh": {
                "parameters": [name],
                "post": _operation(
                    "Ask a server what it offers", None, _SERVER, 404, 409, method="mcp.servers.refresh"
                ),
            },
            **_tool_lock(name),
            "/mcp/import": {
                "post": _operation("Take another product's servers", _IMPORT, _IMPORTED, method="mcp.servers.import")
            },
            "/mcp/export": {"get": _operation("All registrations", None, _RESULT, method="mcp.servers.export")},
            "/mcp/tools": {"get": _list("tools")},
            "/mcp/resources": {"get": _list("resources")},
            "/mcp/prompts": {"get": _list("prompts")},
            "/mcp/tools/call": {
                "post": _operation("Call a tool", _TOOL_CALL, _called(), 404, 409, 429, 502, 504, stream=True)
            },
            "/mcp/resources/read": {
                "post": _operation("Read a resource", _fields("uri"), _RESULT, 404, 429, 502, 504, stream=True)
            },
            "/mcp/prompts/get": {
                "post": _operation("Get a prompt", _fields("name"), _RESULT, 404, 409, 429, 502, 504, stream=True)
            },
            "/rpc": {"post": _operation("JSON-RPC 2.0: every method", _RPC, {}, 429, no_answer=True)},
            **_keys(),
            "/audit": {
                "get": {
                    **_operation(
                        "Who called and changed what, newest first", None, _ROWS, 422, method="mcp.audit.list"
                    ),
                    "parameters": [
                        {"name": name, "in": "query", "schema": schema} for name, schema in _AUDIT_QUERY.items()
                    ],
                }
            },
            "/whoami": {"get": _operation("The caller's own key", None, _WHO, method="mcp.whoami")},
            "/v1/mcp/registry.json": {"get": _operation("The registry document", None, _listed("servers"))},
            "/v0.1/servers": {"get": _operation("The registry's servers", None, _listed("servers"))},
            "/healthz": {"get": _operation("Is the process alive", None, _RESULT, open_to_all=True)},
            "/readyz": {"get": _operation("May this worker get requests", None, _RESULT, open_to_all=True)},
        },
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


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
            "get": _operation("What it changed since it was approved", None, _CHANGES, 404, 422, method=see)
            | {"parameters": asked},
        },
        "/mcp/servers/{name}/approve": {
            "parameters": [name],
            "post": _operation("Approve what it changed", chosen, _CHANGES, 404, 409, method=approve),
        },
        "/mcp/servers/{name}/digests": {
            "parameters": [name],
            "get": _operation("Digests of its tools, as a lock file has them", None, _RESULT, 404, method=digests),
            "post": _operation("The same, once it was asked", None, _RESULT, 404, 409, method=digests),
        },
    }


def _keys() -> Json:
    """The addresses of keys."""
    id: Json = {"name": "id", "in": "path", "required": True, "schema": _KEY_ID}
    owner: Json = {"name": "owner", "in": "query", "schema": {"type": "string", "maxLength": 256}}
    asked: list[Json] = [
        {**owner, "name": "name"},
        owner,
        {"name": "role", "in": "query", "schema": {"enum": list(ROLES)}},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
        {"name": "cursor", "in": "query", "schema": {"type": "string"}},
    ]
    new = {**_KEY_SPEC, "required": ["name"]}
    overlap: Json = {
        "type": "object",
        "properties": {"overlap_seconds": {"type": "integer", "minimum": 0, "maximum": 604_800}},
    }
    as_if: Json = {"type": "object", "properties": {"grants": _KEY_SPEC["properties"]["grants"]}}
    ended = {"type": "object", "required": ["keys"]}
    see, method = "What the key sees", "mcp.keys.access"
    return {
        "/keys": {
            "get": {**_operation("List keys", None, _listed("keys"), 422, method="mcp.keys.list"), "parameters": asked},
            "post": _operation(
                "Make a key; it is shown this once", new, _NEW_KEY, 409, method="mcp.keys.create", status=201
            ),
            "delete": {
                **_operation("Revoke all keys of an owner", None, ended, 422, method="mcp.keys.revoke"),
                "parameters": [{**owner, "required": True}],
            },
        },
        "/keys/{id}": {
            "parameters": [id],
            "get": _operation("Show a key", None, _KEY, 404, method="mcp.keys.get"),
            "patch": _operation("Change a key", _KEY_SPEC, _KEY, 404, 409, method="mcp.keys.update"),
            "delete": _operation("Revoke a key", None, _KEY, 404, method="mcp.keys.revoke"),
        },
        "/keys/{id}/rotate": {
            "parameters": [id],
            "post": _operation("Give it a new secret", overlap, _NEW_KEY, 404, 409, method="mcp.keys.rotate"),
        },
        "/keys/{id}/access": {
            "parameters": [id],
            "get": _operation(see, None, _RESULT, 404, method=method),
            "post": _operation(f"{see} with other grants", as_if, _RESULT, 404, method=method),
        },
    }


def _named() -> Json:
    return {"name": _NAME, **_SPEC["properties"]}


def _called() -> Json:
    return {
        "type": "object",
        "required": ["server", "tool", "result"],
        "properties": {"server": _NAME, "tool": {"type": "string"}, "result": {"type": "object"}},
    }


def _fields(required: str) -> Json:
    return {
        "type": "object",
        "required": [required],
        "properties": {required: {"type": "string"}, "arguments": {"type": "object"}},
    }


def _listed(kind: str) -> Json:
    return {"type": "object", "required": [kind], "properties": {kind: {"type": "array", "items": {"type": "object"}}}}


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
        content["text/event-stream"] = {"schema": _EVENT}
    responses: Json = {str(status): {"description": "done", "content": content}}
    if no_answer:
        responses["202"] = {"description": "a notification was taken"}
    expected = {400, 401, 403, 406, 413, *problems} | ({422} if body else set())
    if not open_to_all:
        for status in sorted(expected):
            media_type = "application/json" if no_answer else "application/problem+json"
            schema = {} if no_answer else _PROBLEM
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
