"""A server's specification as somebody sends it: each field read, checked, and named in the error when it is wrong.

Knows the aliases of other gateways' clients, and what a redacted value means: "as it is stored".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson

from gateway.errors import InvalidParams
from gateway.model.api_document import MAX_BYTES, Document
from gateway.model.limits import read_limits
from gateway.model.override_fields import for_another_upstream, read_overrides
from gateway.model.redaction import REDACTED, redact_arguments, redact_url
from gateway.model.server import OPENAPI, STDIO, ServerSpec, origin
from gateway.model.tool_lock import LOCKS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,63}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e\x80-\xff]([\x20-\x7e\x80-\xff\t]*[\x21-\x7e\x80-\xff])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_READ_ONLY = frozenset(  # what GET shows may be PUT back
    {
        "state", "reason", "discovered_at", "unreachable_since", "created_at", "updated_at", "protocol_version",
        "server_info", "counts", "renamed", "breaker", "changes", "flags", "problems", "document",
    }
)  # fmt: skip
_ALIASES = {"server_id": "name", "transport": "transport_type", "type": "transport_type", "base_url": "url"}
_HINTS = frozenset({"tools", "resources", "prompts"})
"""What other gateways' clients say of a server that is asked itself; without effect."""
_TRANSPORTS = {
    "streamable_http": "streamable_http",
    "streamable-http": "streamable_http",
    "streamablehttp": "streamable_http",
    "http": "streamable_http",
    "sse": "sse",
    "rest": "rest",
    "stdio": "stdio",
    "openapi": "openapi",
}
_MAX_PATTERNS = 256
_MAX_ARGUMENTS = 256
_RESERVED_HEADERS = frozenset(
    {
        "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect",
        "host", "keep-alive", "last-event-id", "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id",
        "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding",
        "upgrade", "via",
    }
)  # fmt: skip


def parse_spec(params: Mapping[str, Any], stored: ServerSpec | None = None) -> ServerSpec:
    """Read a whole specification. Raises InvalidParams, naming the field.

    With `stored`, redacted values mean "unchanged"; headers of another origin are never carried over.
    """
    values = read_fields(params)
    if not values.get("name"):
        raise InvalidParams("The field 'name' is required.", "name")
    return _whole(_restore(ServerSpec(**values), stored))


def patch_spec(stored: ServerSpec, params: Mapping[str, Any]) -> ServerSpec:
    """Change some fields of a specification; the name stays. Raises InvalidParams."""
    values = read_fields(params)
    if values.get("name", stored.name) != stored.name:
        raise InvalidParams("A server's name can't be changed; register it anew.", "name")
    for one, other in (("spec", "spec_url"), ("spec_url", "spec")):
        if values.get(one) is not None:
            values.setdefault(other, None)
    changed = _restore(replace(stored, **values), stored)
    if origin(changed.url) != origin(stored.url) and "headers" not in values:
        changed = replace(changed, headers={})
    if changed.fingerprint != stored.fingerprint and "overrides" not in values:
        changed = replace(changed, overrides=for_another_upstream(changed.overrides))
    if (changed.command, changed.args) != (stored.command, stored.args) and "env" not in values:
        changed = replace(changed, env={})
    return _whole(changed)


def _whole(spec: ServerSpec) -> ServerSpec:
    """Refuse a mixture of what is reached, what is run and what is described. Raises InvalidParams."""
    if spec.transport_type == STDIO:
        if not spec.command:
            raise InvalidParams("A server of transport_type 'stdio' needs a 'command'.", "command")
        other = "url" if spec.url else "headers" if spec.headers else None
    else:
        if not spec.url and spec.transport_type != OPENAPI:  # a document says its own
            raise InvalidParams("The field 'url' is required.", "url")
        other = next((name for name in ("command", "args", "env", "cwd") if getattr(spec, name)), None)
    if spec.transport_type != OPENAPI:
        other = next((name for name in ("spec", "spec_url", "include", "exclude") if getattr(spec, name)), other)
    elif (spec.spec is None) == (spec.spec_url is None):
        raise InvalidParams("A server of transport_type 'openapi' needs either 'spec' or 'spec_url'.", "spec")
    if other is not None:
        raise InvalidParams(f"A server of transport_type {spec.transport_type!r} has no {other!r}.", other)
    return spec


def _restore(spec: ServerSpec, stored: ServerSpec | None) -> ServerSpec:
    url, headers = spec.url, dict(spec.headers)
    if not url and stored is not None and spec.transport_type == OPENAPI == stored.transport_type:
        url = stored.url if (spec.spec, spec.spec_url) == (stored.spec, stored.spec_url) else url
    if stored is not None and url == redact_url(stored.url):
        url = stored.url
    elif REDACTED in url or urlencode({"": REDACTED})[1:] in url:
        raise InvalidParams("The URL holds a redacted value; send the real one.", "url")
    same_origin = stored is not None and origin(url) == origin(stored.url)
    kept = {name.lower(): value for name, value in stored.headers.items()} if stored and same_origin else {}
    for name, value in headers.items():
        if value == REDACTED:
            if name.lower() not in kept:
                or_url = "" if url else ", or where the server is: it may be elsewhere now"
                raise InvalidParams(f"The header {name!r} is redacted; send its value{or_url}.", f"headers.{name}")
            headers[name] = kept[name.lower()]
    spec = replace(spec, url=url, headers=headers, args=_restored_arguments(spec, stored))
    return replace(spec, env=_restored_env(spec, stored), spec_url=_restored_spec_url(spec, stored))


def _restored_spec_url(spec: ServerSpec, stored: ServerSpec | None) -> str | None:
    """Where the document is; and a document that is named by its mark must be the one that is stored."""
    if spec.spec is not None and spec.spec.data is None and (stored is None or stored.spec != spec.spec):
        raise InvalidParams("`spec` is the mark of another document than the stored one; send the document.", "spec")
    url = spec.spec_url
    if url is not None and stored is not None and stored.spec_url and url == redact_url(stored.spec_url):
        return stored.spec_url
    if url is not None and (REDACTED in url or urlencode({"": REDACTED})[1:] in url):
        raise InvalidParams("The URL holds a redacted value; send the real one.", "spec_url")
    return url


def _restored_arguments(spec: ServerSpec, stored: ServerSpec | None) -> tuple[str, ...]:
    """The arguments, as they were where they are sent back as they are shown; another command does not get them."""
    same = stored is not None and stored.command == spec.command
    if stored is not None and same and list(spec.args) == redact_arguments(stored.args):
        return stored.args
    if any(REDACTED in each for each in spec.args):
        raise InvalidParams("An argument holds a redacted value; send all of `args`.", "args")
    return spec.args


def _restored_env(spec: ServerSpec, stored: ServerSpec | None) -> dict[str, str]:
    """The variables, redacted ones as they were; another command does not get them."""
    same = stored is not None and (stored.command, stored.args) == (spec.command, spec.args)
    kept = stored.env if stored is not None and same else {}
    env = dict(spec.env)
    for name, value in env.items():
        if value == REDACTED:
            if name not in kept:
                raise InvalidParams(f"The variable {name!r} is redacted; send its value.", f"env.{name}")
            env[name] = kept[name]
    return env


def read_fields(params: Mapping[str, Any]) -> dict[str, Any]:
    """Check the fields of a specification that are there. Raises InvalidParams, naming the field."""
    values: dict[str, Any] = {}
    for sent, value in identified(params).items():
        name = _ALIASES.get(sent, sent)
        if name in _READ_ONLY or name in _HINTS:
            continue
        if name not in _READERS:
            known = ", ".join(_READERS)
            raise InvalidParams(f"There is no field {sent[:64]!r}; the fields are {known}.", sent[:64])
        read = _READERS[name](value, sent)
        if name in values and values[name] != read:
            raise InvalidParams(f"{sent!r} is an alias of {name!r}, and the two differ.", sent)
        values[name] = read
    if values.get("spec") is not None or values.get("spec_url") is not None:
        values.setdefault("transport_type", OPENAPI)
    return values


def identified(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same fields with one name: beside a `server_id` that differs, `name` is the title.

    So RouteIQ and ContextForge's clients register: `{"server_id": "stub-mcp-1", "name": "A stub", …}`.
    """
    if "server_id" not in params or "name" not in params:
        return params
    rest = {field: value for field, value in params.items() if field != "server_id"}
    if params["server_id"] != params["name"]:
        rest |= {"name": params["server_id"], "title": params.get("title") or params["name"]}
    return rest


def _read_name(value: Any, field: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidParams(
            "A name has 1 to 63 letters, digits, '.', '_' or '-', and starts with a letter or digit "
            "(`title` is free text).",
            field,
        )
    return value


def _text(limit: int, *, optional: bool = False) -> Any:
    def read(value: Any, field: str) -> str | None:
        if value is None and optional:
            return None
        if not isinstance(value, str) or len(value) > limit:
            raise InvalidParams(f"{field!r} must be a string of at most {limit} characters.", field)
        return value

    return read


def read_url(value: Any, field: str) -> str:
    """A server's URL. Raises InvalidParams."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 2048:
        raise InvalidParams("The URL must be a string of at most 2048 characters.", field)
    if not value.isascii() or any(letter <= " " or letter == "\x7f" for letter in value):
        raise InvalidParams("The URL holds a space, a control or a non-ASCII character; encode it.", field)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise InvalidParams("The URL is not valid.", field) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InvalidParams("The URL must be absolute and start with http:// or https://.", field)
    if parts.username is not None or parts.password is not None:
        raise InvalidParams("The URL holds a user or password; send credentials in `headers`.", field)
    if parts.fragment:
        raise InvalidParams("The URL must not have a fragment (#…).", field)
    return value


def _read_transport(value: Any, field: str) -> str:
    if not isinstance(value, str) or value.lower() not in _TRANSPORTS:
        listed = ", ".join(sorted(set(_TRANSPORTS.values()) | {"http"}))
        raise InvalidParams(f"{field!r} must be one of: {listed}.", field)
    return _TRANSPORTS[value.lower()]


def _read_headers(value: Any, field: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > 64:
        raise InvalidParams("`headers` must be an object of at most 64 names and values.", field)
    seen: set[str] = set()
    for name, text in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidParams("A header name has a character that HTTP does not allow.", field)
        if name.lower() in _RESERVED_HEADERS:
            raise InvalidParams(f"The header {name!r} is the gateway's own to set.", f"{field}.{name}")
        if name.lower() in seen:
            raise InvalidParams(f"The header {name!r} stands twice.", f"{field}.{name}")
        if not isinstance(text, str) or len(text) > 8192 or not _HEADER_VALUE.fullmatch(text):
            raise InvalidParams(
                f"The value of the header {name!r} must be text of at most 8,192 characters that a header can hold: "
                "those of Latin-1, and no control characters.",
                f"{field}.{name}",
            )
        seen.add(name.lower())
    return dict(value)


def _read_command(value: Any, field: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= 4096 or "\0" in value:
        raise InvalidParams("`command` is the name or path of a program; it is not parsed by a shell.", field)
    return value


def _read_args(value: Any, field: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MAX_ARGUMENTS:
        raise InvalidParams(f"`args` must be a list of at most {_MAX_ARGUMENTS} strings.", field)
    if not all(isinstance(each, str) and len(each) <= 8192 and "\0" not in each for each in value):
        raise InvalidParams("Each of `args` must be a string of at most 8192 characters.", field)
    return tuple(value)


def _read_env(value: Any, field: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > _MAX_ARGUMENTS:
        raise InvalidParams(f"`env` must be an object of at most {_MAX_ARGUMENTS} names and values.", field)
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            raise InvalidParams("A variable's name has letters, digits and '_'.", field)
        if not isinstance(text, str) or len(text) > 8192 or "\0" in text:
            raise InvalidParams(
                f"The value of {name!r} must be a string of at most 8192 characters.", f"{field}.{name}"
            )
    return dict(value)


def _read_cwd(value: Any, field: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.startswith("/") or len(value) > 4096 or "\0" in value:
        raise InvalidParams("`cwd` must be an absolute path.", field)
    return value


def _read_document(value: Any, field: str) -> Document | None:
    """An OpenAPI document, as an object or a text of JSON or YAML; or the mark of the stored one."""
    if value is None:
        return None
    if isinstance(value, dict) and value.keys() == {"sha256", "bytes"}:
        return Document(str(value["sha256"]), value["bytes"])
    if not isinstance(value, str | dict) or not value:
        raise InvalidParams(f"{field!r} must be an OpenAPI document: an object, or a text of JSON or YAML.", field)
    data = value.encode() if isinstance(value, str) else orjson.dumps(value)
    if len(data) > MAX_BYTES:
        raise InvalidParams(f"The document has {len(data) / (1 << 20):.1f} MiB; at most {MAX_BYTES >> 20}.", field)
    return Document.of(data)


def _read_spec_url(value: Any, field: str) -> str | None:
    return read_url(value, field) or None


def _read_patterns(value: Any, field: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MAX_PATTERNS:
        raise InvalidParams(f"{field!r} must be a list of at most {_MAX_PATTERNS} strings.", field)
    if not all(isinstance(each, str) and 0 < len(each) <= 300 and each.count("*") <= 10 for each in value):
        raise InvalidParams(
            f"Each of {field!r} must be a string of at most 300 characters and 10 '*': a tool's name, 'tag:NAME' or "
            "'METHOD /path'.",
            field,
        )
    return tuple(dict.fromkeys(value))


def _read_flag(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidParams(f"{field!r} must be true or false.", field)
    return value


def _read_lock(value: Any, field: str) -> str | None:
    if value is not None and value not in LOCKS:
        raise InvalidParams(f"{field!r} must be one of {', '.join(LOCKS)}, or null for none.", field)
    return None if value is None else str(value)


def _read_prefix(value: Any, field: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _PREFIX.fullmatch(value):
        raise InvalidParams(
            "`prefix` has up to 63 letters, digits, '.', '_' or '-'; \"\" means none, null the server's name.",
            field,
        )
    return value


def _read_timeout(value: Any, field: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 86400:
        raise InvalidParams(f"{field!r} must be a number of seconds from above 0 to 86400.", field)
    if not math.isfinite(value):
        raise InvalidParams(f"{field!r} must be a finite number.", field)
    return float(value)


def _read_tags(value: Any, field: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > 64:
        raise InvalidParams(f"{field!r} must be a list of at most 64 strings.", field)
    if not all(isinstance(tag, str) and 0 < len(tag) <= 64 for tag in value):
        raise InvalidParams(f"Each of {field!r} must be a string of 1 to 64 characters.", field)
    return tuple(dict.fromkeys(value))


def _read_metadata(value: Any, field: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(orjson.dumps(value)) > 16384:
        raise InvalidParams(f"{field!r} must be an object of at most 16 KiB.", field)
    return value


_READERS: Mapping[str, Any] = {
    "name": _read_name,
    "url": read_url,
    "title": _text(200, optional=True),
    "description": _text(4000),
    "transport_type": _read_transport,
    "headers": _read_headers,
    "command": _read_command,
    "args": _read_args,
    "env": _read_env,
    "cwd": _read_cwd,
    "spec": _read_document,
    "spec_url": _read_spec_url,
    "include": _read_patterns,
    "exclude": _read_patterns,
    "enabled": _read_flag,
    "prefix": _read_prefix,
    "timeout_seconds": _read_timeout,
    "validate_arguments": _read_flag,
    "trust_annotations": _read_flag,
    "limits": read_limits,
    "lock": _read_lock,
    "overrides": read_overrides,
    "tags": _read_tags,
    "metadata": _read_metadata,
}


def is_name(value: str) -> bool:
    """Tell whether a server can have this name at all."""
    return _NAME.fullmatch(value) is not None
