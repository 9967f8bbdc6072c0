"""The JSON Schemas of the REST faces' bodies, for the OpenAPI document: what is taken, and what comes back."""

from __future__ import annotations

from typing import Any

from gateway.model.principals import ROLES
from gateway.model.tool_lock import LOCKS

Json = dict[str, Any]

_RULE_LISTS = ("servers", "tags", "tools", "prompts", "resources", "toolsets")
PROBLEM: Json = {
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
_PATTERNS: Json = {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 300}, "maxItems": 256}
DOCUMENT: Json = {
    "spec": {"type": ["object", "string", "null"], "description": "openapi: the document, or its mark as GET shows it"},
    "spec_url": {"type": ["string", "null"], "maxLength": 2048, "description": "openapi: where the document is"},
    "include": {**_PATTERNS, "description": "openapi: names, tag:NAME or METHOD /path, with * and ?"},
    "exclude": _PATTERNS,
}
SPEC: Json = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "maxLength": 2048, "examples": ["http://localhost:9100/mcp"]},
        "title": {"type": ["string", "null"], "maxLength": 200},
        "description": {"type": "string", "maxLength": 4000},
        "transport_type": {"enum": ["http", "streamable_http", "sse", "rest", "stdio", "openapi"]},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 64},
        "command": {"type": "string", "minLength": 1, "maxLength": 4096, "description": "stdio: what to run"},
        "args": {"type": "array", "items": {"type": "string", "maxLength": 8192}, "maxItems": 256},
        "env": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 256},
        "cwd": {"type": ["string", "null"], "pattern": "^/"},
        **DOCUMENT,
        "enabled": {"type": "boolean"},
        "prefix": {"type": ["string", "null"], "pattern": "^[A-Za-z0-9._-]{0,63}$"},
        "timeout_seconds": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 86400},
        "validate_arguments": {"type": "boolean"},
        "trust_annotations": {"type": "boolean"},
        "limits": _LIMITS,
        "lock": {"enum": [*LOCKS, None]},
        "overrides": {"type": ["object", "null"], "description": "what callers see of its tools, by their own names"},
        "tags": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 64}, "maxItems": 64},
        "metadata": {"type": "object"},
    },
}
PLACES: list[Json] = [{"required": [name]} for name in ("url", "command", "spec", "spec_url")]
NAME: Json = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"}
_TEXT: Json = {"type": "string"}
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_TIME: Json = {"type": "string", "format": "date-time"}
_TIME_OR_NULL: Json = {"type": ["string", "null"], "format": "date-time"}
_OBJECT: Json = {"type": "object"}
SERVER: Json = {
    "type": "object",
    "required": ["name", "server_id", "transport_type", "state", "counts"],
    "properties": {
        **SPEC["properties"],
        "name": NAME,
        "server_id": NAME,
        "args": {"type": "array", "items": _TEXT},  # redacted, and so perhaps longer
        "url": _TEXT,
        "state": {"enum": ["starting", "ready", "unreachable", "disabled"]},
        "reason": {**_TEXT_OR_NULL, "description": "why it is not ready, and what to do"},
        "discovered_at": {**_TIME_OR_NULL, "description": "when it was last asked what it offers"},
        "unreachable_since": _TIME_OR_NULL,
        "created_at": _TIME_OR_NULL,
        "updated_at": _TIME_OR_NULL,
        "protocol_version": _TEXT_OR_NULL,
        "server_info": {"type": ["object", "null"], "description": "what it says of itself (MCP, Implementation)"},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "changes": {"type": "integer", "description": "tools to approve"},
        "flags": {"type": "integer", "description": "what looks suspicious in its lists"},
        "renamed": {"type": "object", "additionalProperties": _TEXT},
        "breaker": {"enum": ["closed", "open", "half-open"]},
        "problems": {"type": "array", "items": _TEXT, "description": "what does not fit, and what is left out"},
        "document": {"type": "object", "description": "openapi: title, version, and how much became tools"},
    },
}
_SAID: Json = {"description": "as the server says it, of the type that MCP has for it unless the server errs"}
_OF_SERVER: Json = {
    "server": {**NAME, "description": "whose it is"},
    **dict.fromkeys(("title", "description", "icons", "_meta"), _SAID),
}
ITEMS: dict[str, Json] = {
    "tools": {
        "type": "object",
        "required": ["name", "server", "inputSchema"],
        "properties": {
            "name": {**_TEXT, "description": "the public name, by which it is called"},
            **_OF_SERVER,
            "inputSchema": {"type": "object", "description": "a JSON Schema of its arguments"},
            "outputSchema": {"description": "a JSON Schema of `structuredContent`, as the server says it"},
            "annotations": {"description": "its hints (MCP, ToolAnnotations), as the server says them"},
            "tokens": {"type": "integer", "description": "where asked for: what it takes of a model's context"},
        },
    },
    "resources": {
        "type": "object",
        "required": ["uri", "server"],
        "properties": {
            "uri": {**_TEXT, "description": "by which it is read"},
            **_OF_SERVER,
            **dict.fromkeys(("name", "mimeType", "size", "annotations"), _SAID),
        },
    },
    "resourceTemplates": {
        "type": "object",
        "required": ["uriTemplate", "server"],
        "properties": {
            "uriTemplate": {**_TEXT, "description": "RFC 6570"},
            **_OF_SERVER,
            **dict.fromkeys(("name", "mimeType", "annotations"), _SAID),
        },
    },
    "prompts": {
        "type": "object",
        "required": ["name", "server"],
        "properties": {
            "name": {**_TEXT, "description": "the public name"},
            **_OF_SERVER,
            "arguments": {"description": "a list of objects with `name`, `title`, `description` and `required`"},
        },
    },
    "servers": SERVER,
}
"""The items of our lists; servers may send more fields than these, which are passed on."""
REGISTERED: Json = {
    "type": "object",
    "required": ["server", "_meta"],
    "properties": {
        "server": {
            "type": "object",
            "required": ["name", "description", "version", "remotes"],
            "properties": {
                **dict.fromkeys(("$schema", "name", "title", "description", "version"), _TEXT),
                "remotes": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["type", "url"],
                        "properties": {"type": _TEXT, "url": _TEXT, "headers": {"type": "array", "items": _OBJECT}},
                    },
                },
            },
        },
        "_meta": _OBJECT,
    },
}
"""A server as the registry has it (server.schema.json of 2025-12-11)."""
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
_OF_TOOLSETS: Json = {
    "type": "array",
    "maxItems": 256,
    "items": {
        **_RULES["items"],
        "properties": {name: schema for name, schema in _RULES["items"]["properties"].items() if name != "toolsets"},
    },
}
SLUG: Json = {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"}
TOOLSET_SPEC: Json = {
    "type": "object",
    "properties": {
        "title": {"type": ["string", "null"], "maxLength": 200},
        "description": {"type": "string", "maxLength": 4000},
        "instructions": {"type": ["string", "null"], "maxLength": 16_000, "description": "what `initialize` says"},
        "enabled": {"type": "boolean"},
        "names": {"enum": ["prefixed", "bare"]},
        "include": _OF_TOOLSETS,
        "exclude": _OF_TOOLSETS,
        "overrides": {"type": ["object", "null"], "description": "what callers see of tools here, by server and tool"},
        "results": {
            "type": ["object", "null"],
            "description": "what becomes of large results: max_bytes, select, overflow",
        },
        "mode": {"enum": ["full", "search", "auto", None], "description": "how MCP lists its tools"},
        "pinned": {"type": ["array", "null"], "items": {"type": "string"}, "maxItems": 100},
    },
}
TOOLSET: Json = {
    "type": "object",
    "required": ["slug", "title", "description", "instructions", "enabled", "names", "state", "counts", "servers"],
    "properties": {
        "slug": SLUG,
        **TOOLSET_SPEC["properties"],
        "state": {"enum": ["ready", "incomplete", "disabled"]},
        "problems": {"type": "array", "items": _TEXT, "description": "what is not as its author wanted it"},
        "servers": {"type": "array", "items": NAME},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "revision": {"type": "integer"},
        "created_at": _TIME,
        "updated_at": _TIME,
        "tokens": {"type": "object", "description": "where asked for: what its tools take of a model's context"},
    },
}
"""A toolset; to a user's key without its rules."""
ITEMS["toolsets"] = TOOLSET
KEY_ID: Json = {"type": "string", "pattern": "^[0-9A-Za-z]{12}$"}
KEY_SPEC: Json = {
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
WHO: Json = {
    "type": "object",
    "required": ["id", "name", "role", "grants"],
    "properties": {
        "id": _TEXT,
        "name": _TEXT,
        "role": {"enum": list(ROLES)},
        "grants": KEY_SPEC["properties"]["grants"],
        "limits": _LIMITS,
        "left": {"type": ["object", "null"], "description": "what is left of the limits"},
        "warning": {**_TEXT, "description": "it expires within two weeks"},
    },
}
_OF_KEYS = ("created_at", "expires_at", "revoked_at", "last_used_at")
KEY: Json = {
    "type": "object",
    "required": [*WHO["required"], "owner", "tags", *_OF_KEYS],
    "properties": {
        **{name: schema for name, schema in WHO["properties"].items() if name != "left"},
        "owner": _TEXT_OR_NULL,
        "tags": KEY_SPEC["properties"]["tags"],
        **dict.fromkeys(_OF_KEYS, _TIME_OR_NULL),
        "old_secret_until": _TIME,
    },
}
ITEMS["keys"] = KEY
_SEEN = ("servers", "tools", "prompts", "resources", "toolsets", "unmatched")
ACCESS: Json = {
    "type": "object",
    "required": list(_SEEN),
    "properties": {name: {"type": "array", "items": _TEXT} for name in _SEEN},
}
"""What a key sees, by public names, and which texts of its grants fit nothing."""
NEW_KEY: Json = {
    **KEY,
    "required": [*KEY["required"], "key"],
    "properties": {**KEY["properties"], "key": {**_TEXT, "description": "shown this once"}},
}
IMPORT: Json = {
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
PREVIEW: Json = {
    "type": "object",
    "properties": {
        "name": {**NAME, "description": "a registered API, whose own document it is then"},
        "base_url": SPEC["properties"]["url"],
        "headers": SPEC["properties"]["headers"],
        **DOCUMENT,
    },
    "additionalProperties": False,
}
PREVIEWED: Json = {
    "type": "object",
    "required": ["title", "version", "openapi", "base_url", "security", "warnings", "tools", "left_out", "tokens"],
    "properties": {
        **dict.fromkeys(("title", "version", "openapi", "base_url"), _TEXT),
        "security": {"type": "array", "items": _OBJECT, "description": "how the API wants to be authenticated to"},
        "warnings": {"type": "array", "items": _TEXT},
        "tools": {"type": "array", "items": _OBJECT, "description": "MCP's tools, with `operation` and `tokens`"},
        "left_out": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["operation", "name", "reason"],
                "properties": dict.fromkeys(("operation", "name", "reason"), _TEXT),
            },
        },
        "tokens": {"type": "integer"},
    },
}
IMPORTED: Json = {
    "type": "object",
    "required": ["format", "servers", "variables", "optional", "notes"],
    "properties": {
        "format": {**_TEXT, "description": "whose file it is"},
        "servers": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "given", "action"],
                "properties": {
                    "name": _TEXT,
                    "given": {**_TEXT, "description": "its name in the file"},
                    "action": {"enum": ["add", "change", "same", "skip", "refused"]},
                    "changes": {"type": "array", "items": _TEXT},
                    "problem": {**_TEXT, "description": "why it was not, or would not be, taken"},
                    "field": _TEXT_OR_NULL,
                    "notes": {"type": "array", "items": _TEXT},
                    "server": {"type": "object", "description": "the registration that it becomes"},
                },
            },
        },
        **{name: {"type": "array", "items": _TEXT} for name in ("variables", "optional", "notes")},
    },
}
CHANGES: Json = {
    "type": "object",
    "required": ["server", "lock", "digest", "changes", "flags", "total", "next_cursor"],
    "properties": {
        "server": NAME,
        "lock": _TEXT_OR_NULL,
        "digest": {**_TEXT, "description": "of what is offered now; an approval may name it"},
        "changes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool", "what", "effect"],
                "properties": {
                    **dict.fromkeys(("tool", "what", "effect", "diff"), _TEXT),
                    "parts": {"type": "array", "items": _TEXT},
                    **{key: {"type": ["object", "null"]} for key in ("before", "after")},
                    "diff_is_whole": {"type": "boolean"},
                    "override": {"type": "object", "description": "what callers see in place of it"},
                    "doubted": {"type": "object", "description": "hints that are not believed until approved"},
                },
            },
        },
        "flags": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["what", "place", "detail"],
                "properties": dict.fromkeys(("what", "place", "detail"), _TEXT),
            },
        },
        "total": {"type": "integer"},
        "next_cursor": _TEXT_OR_NULL,
    },
}
_WORD: Json = {"type": "string", "maxLength": 200}
AUDIT_QUERY: Json = {
    "kind": {"enum": ["call", "change"]},
    **dict.fromkeys(("principal", "key_id", "server", "tool", "outcome", "request_id"), _WORD),
    **{key: {"type": "string", "format": "date-time"} for key in ("since", "until")},
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
    "cursor": _WORD,
}
ROWS: Json = {
    "type": "object",
    "required": ["rows", "next_cursor"],
    "properties": {
        "rows": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["kind", "at", "principal", "key_id", "method", "request_id", "replica"],
                "properties": {
                    "kind": {"enum": ["call", "change"]},
                    "at": _TIME,
                    **dict.fromkeys(("principal", "key_id", "method", "request_id", "replica"), _TEXT_OR_NULL),
                    **dict.fromkeys(("address", "server", "tool", "outcome", "target"), _TEXT_OR_NULL),
                    "ms": {"type": ["number", "null"], "description": "in the gateway"},
                    "upstream_ms": {"type": ["number", "null"], "description": "at the server"},
                    "bytes": {"type": ["integer", "null"], "description": "of the answer"},
                    "arguments_digest": {**_TEXT_OR_NULL, "description": "an HMAC under the gateway's secret"},
                    "arguments": {"description": "where GATEWAY_AUDIT_ARGUMENTS keeps them"},
                    **{key: {"type": ["object", "null"]} for key in ("before", "after")},
                },
            },
        },
        "next_cursor": _TEXT_OR_NULL,
    },
}
RPC: Json = {
    "type": "object",
    "required": ["jsonrpc", "method"],
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": ["string", "integer"]},
        "method": {"type": "string"},
        "params": {"type": "object"},
    },
}
TOOL_CALL: Json = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}, "_meta": {"type": "object"}},
    "additionalProperties": False,
}
RESULT: Json = {"type": "object"}
EVENT: Json = {
    "type": "object",
    "required": ["data"],
    "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": {"type": "string"}},
}
