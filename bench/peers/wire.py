"""The little of MCP over HTTP that opens a session at a peer; the calls themselves are the load generator's."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

_VERSION = "2025-11-25"
_HELLO = {"protocolVersion": _VERSION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
_TOOL = "echo"


@dataclass(frozen=True)
class Opened:
    """What calls of a session hold: its headers, and what the tools' names begin with."""

    headers: dict[str, str]
    prefix: str


def ask(port: int, path: str, value: object, headers: dict[str, str]) -> tuple[dict[str, str], Any]:
    """Send a POST: the headers of its answer in lower case, and its JSON, which may come as an event."""
    both = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, json.dumps(value).encode(), both | headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
        got = {name.lower(): value for name, value in answer.headers.items()}
    if got.get("content-type", "").startswith("text/event-stream"):
        data = [line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:")]
        text = next(line for line in reversed(data) if line.strip())
    return got, json.loads(text) if text.strip() else None


def open_session(port: int, path: str, headers: dict[str, str]) -> Opened:
    """Open a session, and look up what the upstream's tool is called there."""
    got, said = ask(port, path, _message("initialize", _HELLO, 1), headers)
    session = headers | {"mcp-protocol-version": said["result"]["protocolVersion"]}
    if "mcp-session-id" in got:
        session["mcp-session-id"] = got["mcp-session-id"]
    ask(port, path, _message("notifications/initialized", {}), session)
    _, said = ask(port, path, _message("tools/list", {}, 2), session)
    names = [tool["name"] for tool in said["result"]["tools"] if tool["name"].endswith(_TOOL)]
    if not names:
        raise LookupError(f"it lists no tool {_TOOL}")
    return Opened(session, names[0].removesuffix(_TOOL))


def _message(method: str, params: object, id: int | None = None) -> dict[str, object]:
    message: dict[str, object] = {"jsonrpc": "2.0", "method": method, "params": params}
    return message | ({"id": id} if id is not None else {})
