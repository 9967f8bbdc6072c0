"""The formats of files that hold MCP servers, each made into registrations' fields, with notes on what is not taken.

Sources: modelcontextprotocol.io (Claude Desktop), code.claude.com (Claude Code), docs.cursor.com, docs.windsurf.com,
code.visualstudio.com/docs/copilot/reference/mcp-configuration, zed.dev/docs/ai/mcp, the registry's server.schema.json
of 2025-12-11, docs.litellm.ai/docs/mcp, and ContextForge's mcpgateway/services/export_service.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

EXPORT = "mcp-gateway export"
_TRANSPORTS = {
    "http": "http", "streamable-http": "http", "streamable_http": "http", "streamablehttp": "http", "sse": "sse",
}  # fmt: skip
_OF_ENTRY = (
    "$schema", "name", "title", "description", "version", "status", "repository", "websiteUrl", "icons", "remotes",
    "packages", "_meta",
)  # fmt: skip
_OF_REMOTE = ("type", "url", "headers", "variables")
_OF_PACKAGE = (
    "registryType", "registry_name", "registryBaseUrl", "identifier", "version", "fileSha256", "runtimeHint",
    "runtimeArguments", "packageArguments", "environmentVariables", "transport",
)  # fmt: skip
_RUNNERS = {"npm": "npx", "pypi": "uvx", "oci": "docker", "nuget": "dnx"}

Fields = dict[str, Any]
Convert = Callable[[Mapping[str, Any]], tuple[Fields, list[str]]]
"""Makes a registration's fields of one server, and notes."""
Found = tuple[list[tuple[str, Any]], list[str], Convert]
"""The servers of a file by their names there, notes on the file, and what converts each."""


class CanNot(Exception):
    """A server that can't be taken at all; the text says why."""


def text_of(value: Any) -> str:
    """A value as text: a number or truth value as JSON writes it. Raises CanNot."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping | list):
        raise CanNot("A header, variable or argument must be a text.")
    return json.dumps(value)


def _object(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A member that must be an object, if it is there. Raises CanNot."""
    found = value.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise CanNot(f"Its {name!r} must be an object.")
    return dict(found or {})


def _list(value: Mapping[str, Any], name: str, *, of_objects: bool = False) -> list[Any]:
    """A member that must be a list, if it is there. Raises CanNot."""
    found = value.get(name)
    is_sound = isinstance(found, list) and (not of_objects or all(isinstance(each, Mapping) for each in found))
    if found is not None and not is_sound:
        raise CanNot(f"Its {name!r} must be a list{' of objects' if of_objects else ''}.")
    return list(found or ())


def _unknown(value: Mapping[str, Any], known: Sequence[str], without_effect: Sequence[str] = ()) -> list[str]:
    """A note for each key that is not taken."""
    return [f"{name!r} is not taken." for name in value if name not in known and name not in without_effect]


def _plain(value: Mapping[str, Any], url: Any, extra: Sequence[str], notes: list[str]) -> Fields:
    """What the files of editors have in common: a URL with headers, or a command with arguments and variables."""
    fields: Fields = {}
    kind = str(value.get("type") or value.get("transport") or value.get("transportType") or "").lower()
    if isinstance(url, str) and url and kind != "stdio":
        fields |= {"url": url, "headers": _headers(value.get("headers"))}
        if kind and kind not in _TRANSPORTS:
            notes.append(f"The transport {kind[:40]!r} is not known here; what it speaks is found out.")
        fields["transport_type"] = _TRANSPORTS.get(kind, "http")
    elif value.get("command"):
        command = value["command"]
        inner = command if isinstance(command, Mapping) else value  # Zed had them below `command`
        fields |= {
            "transport_type": "stdio",
            "command": text_of(inner.get("path") if isinstance(command, Mapping) else command),
            "args": [text_of(each) for each in _list(inner, "args")],
            "env": _object(inner, "env"),
            "cwd": value.get("cwd"),
        }
    else:
        raise CanNot("It has neither a URL nor a command.")
    if value.get("disabled") is True or value.get("enabled") is False or value.get("is_active") is False:
        fields["enabled"] = False
    if isinstance(value.get("description"), str):
        fields["description"] = value["description"]
    known = (
        "url", "headers", "type", "transport", "transportType", "command", "args", "env", "cwd", "disabled", "enabled",
        "description", *extra,
    )  # fmt: skip
    notes += _unknown(value, known)
    return fields


def _headers(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list):  # the registry's, or "Name: value"
        pairs = [each.partition(":")[::2] if isinstance(each, str) else _named(each) for each in value]
        return {str(name).strip(): str(text or "").strip() for name, text in pairs if name}
    if value is None:
        return {}
    raise CanNot("Its 'headers' must be an object.")


def _editors(document: Mapping[str, Any]) -> Found | None:
    """`mcpServers`, at the top and (Claude Code's `~/.claude.json`) below projects."""
    found: list[tuple[str, Any]] = []
    places = [document, *(each for each in _members(document.get("projects")) if isinstance(each, Mapping))]
    seen = False
    for place in places:
        if isinstance(place.get("mcpServers"), Mapping):
            seen = True
            found += [item for item in place["mcpServers"].items() if item not in found]
    if not seen:
        return None

    def convert(value: Mapping[str, Any]) -> tuple[Fields, list[str]]:
        notes: list[str] = []
        return _plain(value, value.get("url") or value.get("serverUrl"), ("serverUrl",), notes), notes

    return found, [], convert


def _named(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, Mapping):
        raise CanNot("Its 'headers' must be texts or objects with a name and a value.")
    return value.get("name"), value.get("value")


def _members(value: Any) -> Iterator[Any]:
    yield from value.values() if isinstance(value, Mapping) else ()


def _vscode(document: Mapping[str, Any]) -> Found | None:
    inner = document.get("mcp")
    place: Mapping[str, Any] = inner if isinstance(inner, Mapping) else document
    if not isinstance(place.get("servers"), Mapping):
        return None

    def convert(value: Mapping[str, Any]) -> tuple[Fields, list[str]]:
        notes: list[str] = []
        return _plain(value, value.get("url"), (), notes), notes

    notes = _unknown(place, ("servers", "inputs"), ("$schema",)) if place is document else []
    return list(place["servers"].items()), notes, convert


def _zed(document: Mapping[str, Any]) -> Found | None:
    if not isinstance(document.get("context_servers"), Mapping):
        return None

    def convert(value: Mapping[str, Any]) -> tuple[Fields, list[str]]:
        notes: list[str] = []
        if value.get("source") == "extension":
            raise CanNot("It is an extension of Zed's.")
        return _plain(value, value.get("url"), ("source",), notes), notes

    return list(document["context_servers"].items()), [], convert


def _registry(document: Mapping[str, Any]) -> Found | None:
    """One `server.json`, or a page of a registry's list."""
    entries = document.get("servers") if isinstance(document.get("servers"), list) else [document]
    servers = [each.get("server", each) for each in entries or () if isinstance(each, Mapping)]
    if not any(isinstance(each, Mapping) and ("packages" in each or "remotes" in each) for each in servers):
        return None
    return [(str(each.get("name", "")).rpartition("/")[2], each) for each in servers], [], _registry_entry


def _registry_entry(value: Mapping[str, Any]) -> tuple[Fields, list[str]]:
    notes: list[str] = []
    fields: Fields = {"description": value.get("description"), "title": value.get("title") or value.get("name")}
    remotes, packages = _list(value, "remotes", of_objects=True), _list(value, "packages", of_objects=True)
    if remotes:
        first = remotes[0]
        fields |= {"url": first.get("url"), "transport_type": _TRANSPORTS.get(str(first.get("type")), "http")}
        fields["headers"] = {
            each["name"]: each.get("value") or f"${{input:{each['name']}}}"
            for each in _list(first, "headers", of_objects=True)
            if each.get("value") or each.get("isRequired")
        }
        notes += _unknown(first, _OF_REMOTE)
        if len(remotes) > 1 or packages:
            notes.append("It can be reached in other ways, too; the first remote is taken.")
        fields["url"] = re.sub(r"\{([^{}]+)\}", r"${input:\1}", str(first.get("url") or ""))
    elif packages:
        fields |= _package(packages[0], notes)
    else:
        raise CanNot("It names neither a remote nor a package.")
    notes += _unknown(value, _OF_ENTRY)
    return fields, notes


def _package(package: Mapping[str, Any], notes: list[str]) -> Fields:
    kind, name = str(package.get("registryType") or package.get("registry_name")), str(package.get("identifier"))
    runner = package.get("runtimeHint") or _RUNNERS.get(kind)
    if runner is None:
        raise CanNot(f"Packages of {kind[:40]!r} can't be run here.")
    version = package.get("version")
    pinned = name if not version or kind == "oci" else f"{name}{'==' if kind == 'pypi' else '@'}{version}"
    arguments = [*_arguments(package, "runtimeArguments")]
    env = {
        each["name"]: each.get("value") or each.get("default") or f"${{input:{each['name']}}}"
        for each in _list(package, "environmentVariables", of_objects=True)
        if each.get("value") or each.get("default") or each.get("isRequired")
    }
    if kind == "npm" and runner == "npx" and "-y" not in arguments:
        arguments.insert(0, "-y")
    if kind == "oci" and not arguments:
        arguments = ["run", "-i", "--rm", *(part for each in env for part in ("-e", each))]
    notes += _unknown(package, _OF_PACKAGE)
    transport = _object(package, "transport").get("type", "stdio")
    if transport != "stdio":
        notes.append(f"It speaks {str(transport)[:40]!r} once it runs; run it yourself, and register its URL.")
    return {
        "transport_type": "stdio",
        "command": runner,
        "args": [*arguments, pinned, *_arguments(package, "packageArguments")],
        "env": env,
    }


def _arguments(package: Mapping[str, Any], name: str) -> Iterator[str]:
    for each in _list(package, name, of_objects=True):
        text = each.get("value") or each.get("default")
        if each.get("type") == "named":
            yield str(each.get("name"))
        if text or (each.get("type") == "positional" and each.get("isRequired")):
            yield str(text or f"${{input:{each.get('valueHint') or each.get('name')}}}")


_LITELLM_AUTH = {
    "bearer_token": ("Authorization", "Bearer "),
    "authorization": ("Authorization", ""),
    "basic": ("Authorization", "Basic "),
    "token": ("Authorization", "Token "),
    "api_key": ("X-API-Key", ""),
}


def _litellm(document: Mapping[str, Any]) -> Found | None:
    if not isinstance(document.get("mcp_servers"), Mapping):
        return None

    def convert(value: Mapping[str, Any]) -> tuple[Fields, list[str]]:
        notes: list[str] = []
        headers = {name: _environ(each) for name, each in _object(value, "static_headers").items()}
        kind = text_of(value.get("auth_type") or "none")
        secret = value.get("auth_value") or value.get("authentication_token")
        if kind in _LITELLM_AUTH and secret:
            name, prefix = _LITELLM_AUTH[kind]
            headers[name] = prefix + _environ(secret)
        elif kind != "none":
            notes.append(f"Its auth_type {kind[:40]!r} is not taken.")
        plain = {
            **value,
            "url": _environ(value.get("url")),
            "headers": headers,
            "env": {name: _environ(each) for name, each in _object(value, "env").items()},
            "args": [_environ(each) for each in _list(value, "args")],
        }
        if not value.get("description") and isinstance(info := value.get("mcp_info"), Mapping):
            plain["description"] = info.get("description")
        if value.get("allowed_tools") or value.get("disallowed_tools"):
            notes.append("Which tools are allowed is for keys' grants here, and is not taken.")
        extra = (
            "static_headers", "auth_type", "auth_value", "authentication_token", "spec_version", "mcp_info", "alias",
            "allowed_tools", "disallowed_tools",
        )  # fmt: skip
        return _plain(plain, plain["url"], extra, notes), notes

    return list(document["mcp_servers"].items()), [], convert


def _environ(value: Any) -> str:
    """LiteLLM's `os.environ/X` as a reference."""
    text = text_of(value) if value is not None else ""
    return f"${{env:{text.removeprefix('os.environ/')}}}" if text.startswith("os.environ/") else text


def _contextforge(document: Mapping[str, Any]) -> Found | None:
    entities = document.get("entities")
    if not isinstance(entities, Mapping):
        return None
    listed = entities.get("gateways")
    gateways = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
    rest = {name: each for name, each in entities.items() if name != "gateways" and each and isinstance(each, list)}
    others = [f"{name} ({len(each)})" for name, each in rest.items()]
    notes = [f"Taken are gateways; not taken: {', '.join(others)}."] if others else []

    def convert(value: Mapping[str, Any]) -> tuple[Fields, list[str]]:
        inner: list[str] = []
        extra = (
            "name", "tags", "capabilities", "health_check", "is_active", "federation_enabled", "passthrough_headers",
            "auth_type", "auth_value", "auth_headers", "slug", "id", "visibility", "team_id", "owner_email",
        )  # fmt: skip
        fields = _plain(value, value.get("url"), extra, inner)
        if value.get("tags"):
            fields["tags"] = [
                str(tag.get("id", tag) if isinstance(tag, Mapping) else tag) for tag in _list(value, "tags")
            ]
        if value.get("auth_type"):
            inner.append("Its credentials are encrypted in the export: set its headers by hand.")
        return fields, inner

    return [(str(each.get("name", "")), each) for each in gateways], notes, convert


def _own(document: Mapping[str, Any]) -> Found | None:
    """What `mcp-gateway export` wrote: registrations as they are shown."""
    if document.get("format") != EXPORT or not isinstance(document.get("servers"), Mapping):
        return None
    notes = ["Taken are servers; toolsets are taken by `mcp-gateway apply`."] if document.get("toolsets") else []
    return list(document["servers"].items()), notes, lambda value: (dict(value), [])


FORMATS: Mapping[str, Callable[[Mapping[str, Any]], Found | None]] = {
    EXPORT: _own,
    "mcpServers": _editors,
    "Zed": _zed,
    "LiteLLM": _litellm,
    "ContextForge": _contextforge,
    "VS Code": _vscode,
    "server.json": _registry,
}
