"""The 12 cases of the validation that an earlier gateway failed, judged on any deployment from outside.

Speaks HTTP only and imports nothing of the gateway. Where things are comes from the environment; see `Deployment`.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

_DEMO_KEY = "sk-master-key-change-me"
_SECONDS = 15.0
_SSE = {"accept": "text/event-stream"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Deployment:
    """Where to knock: VALIDATE_URL, VALIDATE_REPLICAS (comma-separated), VALIDATE_STUB, and the gateway's key.

    With VALIDATE_URL alone the replicas are taken to be that address.
    """

    url: str
    replicas: tuple[str, ...]
    stub: str
    key: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Deployment:
        def port(name: str, default: int) -> str:
            return f"http://localhost:{environment.get(name) or default}"

        both = (port("GATEWAY_PORT", 4000), port("GATEWAY_REPLICA2_PORT", 4001))
        replicas = environment.get("VALIDATE_REPLICAS") or environment.get("VALIDATE_URL") or ",".join(both)
        return cls(
            url=(environment.get("VALIDATE_URL") or port("GATEWAY_NGINX_PORT", 8080)).rstrip("/"),
            replicas=tuple(url.strip().rstrip("/") for url in replicas.split(",")),
            stub=(environment.get("VALIDATE_STUB") or port("GATEWAY_STUB_PORT", 9100) + "/mcp").rstrip("/"),
            key=environment.get("GATEWAY_MASTER_KEY") or environment.get("LITELLM_MASTER_KEY") or _DEMO_KEY,
        )


class Wrong(Exception):
    """The deployment answered something else than it must."""


@dataclass(frozen=True)
class Event:
    name: str
    data: Any
    at: float


class Validation:
    """The cases, each a method that says what came or raises Wrong; servers it registers are removed at the end."""

    def __init__(self, deployment: Deployment) -> None:
        self._to = deployment
        self._http = httpx.Client(
            headers={"authorization": f"Bearer {deployment.key}"}, timeout=_SECONDS, trust_env=False
        )
        self._registered: list[str] = []

    def close(self) -> None:
        for name in self._registered:
            with suppress(httpx.HTTPError):
                self._http.delete(f"{self._to.url}/mcp/servers/{name}")
        self._http.close()

    def case_1_1(self) -> str:
        answer = self._get(f"{self._to.url}/v1/mcp/registry.json")
        document = self._json(answer)
        servers = document.get("servers")
        _require(isinstance(servers, list) and bool(servers), f"no servers in {_short(document)}")
        name = self._register({"description": "validation 1.1"})["name"]
        document = self._json(self._get(f"{self._to.url}/v1/mcp/registry.json"))
        named = [entry["server"]["name"] for entry in document["servers"]]
        _require(any(each.endswith(f"/{name}") for each in named), f"{name} is not among {named}")
        return f"200, {len(named)} entries"

    def case_1_2(self) -> str:
        with self._events(self._to.url, "/mcp/servers") as (head, events):
            cache = head.headers.get("cache-control")
            _require(cache == "no-cache, no-transform", f"cache-control is {cache!r}")
            first = next(events)
            _require(first.name == "servers" and "servers" in first.data, f"first event {first.name!r}")
            name = self._register({"description": "validation 1.2"})["name"]
            for event in events:
                if event.name == "servers" and name in {server["name"] for server in event.data["servers"]}:
                    return "200, first event, then the change"
        raise Wrong("the stream ended before the change came")

    def case_2_1(self) -> str:
        tools = self._json(self._get(f"{self._to.stub}/tools")).get("tools", [])
        names = {tool.get("name") for tool in tools}
        _require({"stub.echo", "stub.sum"} <= names, f"tools are {sorted(map(str, names))}")
        _require(all("input_schema" in tool for tool in tools), "input_schema is missing")
        return f"200, {len(names)} tools"

    def case_3_1(self) -> str:
        stored = [self._register({"description": "validation 3.1, REST"})]
        for method in ("mcp.servers.register", "mcp/servers/register"):
            stored.append(self._register({"description": f"validation 3.1, {method}"}, method))
        for server in stored:
            _require(server["url"] == self._to.stub, f"the stored url is {server['url']}")
            for replica in self._to.replicas:
                self._seen_at(replica, server["name"])
        return "200 in 3 spellings, on every replica"

    def case_3_2(self) -> str:
        return self._list(self._to.replicas[0], "/mcp/servers", "servers")

    def case_3_3(self) -> str:
        return self._list(self._to.replicas[-1], "/mcp/servers", "servers")

    def case_4_1(self) -> str:
        self._register({"description": "validation 4.1"})
        return self._list(self._to.url, "/mcp/tools", "tools", "stub.echo")

    def case_4_2(self) -> str:
        self._register({"description": "validation 4.2"})
        return self._list(self._to.url, "/mcp/resources", "resources", "test-resource-1")

    def case_5_1(self) -> str:
        self._register({"description": "validation 5.1"})
        for body in self._both("stub.echo", {"message": "hello"}):
            result = self._result(self._json(self._post(body)))
            _require("hello" in json.dumps(result.get("content")), f"no echo in {_short(result)}")
        alias = {"tool_name": "stub.echo", "arguments": {"message": "hello"}}
        _require("hello" in json.dumps(self._json(self._post(alias))), "tool_name is not taken")
        return "200 and the echo, in both"

    def case_5_2(self) -> str:
        rest, rpc = self._both("stub.nonexistent", {})
        answer = self._post(rest)
        _require(answer.status_code == 404, f"REST answered {answer.status_code}")
        detail = answer.json().get("detail", "")
        _require("stub.nonexistent" in detail, f"the detail is {detail!r}")
        document = self._json(self._post(rpc))
        _require(document.get("error", {}).get("code") == -32602, f"JSON-RPC answered {_short(document)}")
        _require(document.get("id") == rpc["id"], f"the id is {document.get('id')!r}")
        return "404 with the name; -32602"

    def case_6_1(self) -> str:
        self._register({"description": "validation 6.1"})
        call = {"name": "stub.echo", "arguments": {"message": "hello"}}
        with self._events(self._to.url, "/mcp/tools/call", call) as (_, events):
            _require("hello" in json.dumps(list(events)[-1].data), "no echo in the last event")
        slow = {"name": "stub.progress", "arguments": {"steps": 4, "seconds": 1.2}}
        with self._events(self._to.url, "/mcp/tools/call", slow) as (_, stream):
            seen = list(stream)
        steps = [event for event in seen if event.name == "progress"]
        _require(len(steps) == 4, f"{len(steps)} progress events of 4")
        _require(seen[-1].name == "result", f"the last event is {seen[-1].name!r}")
        spread = seen[-1].at - steps[0].at
        _require(spread > 0.5, f"everything came within {spread:.2f} s of a 1.2 s call: a proxy buffers")
        rpc = self._rpc("tools/call", {**slow, "_meta": {"progressToken": "p"}})
        with self._events(self._to.url, "/mcp/tools/call", rpc) as (_, stream):
            methods = [event.data.get("method", "result") for event in stream]
        _require(methods.count("notifications/progress") == 4, f"JSON-RPC streamed {methods}")
        return "4 progress events as they happened, then the result"

    def case_7_1(self) -> str:
        self._register({"description": "validation 7.1"})

        def call(number: int) -> bool:
            body = self._both("stub.echo", {"message": f"call {number}"})[number % 2]
            return f"call {number}" in json.dumps(self._json(self._post(body)))

        with ThreadPoolExecutor(5) as five:
            right = sum(five.map(call, range(20)))
        _require(right == 20, f"{right} of 20 succeeded")
        return "20 of 20"

    # --- how to ask -----------------------------------------------------------------------------------------------

    def _register(self, fields: Json, method: str | None = None) -> Json:
        """Register the stub under a name of our own, by REST or JSON-RPC."""
        name = f"validate-{uuid.uuid4().hex[:8]}"
        spec = {"name": name, "url": self._to.stub, "transport_type": "streamable_http", **fields}
        self._registered.append(name)
        body = spec if method is None else self._rpc(method, spec)
        document = self._json(self._http.post(f"{self._to.url}/mcp/servers", json=body))
        stored: Json = document if method is None else document.get("result", {})
        _require(stored.get("name") == name, f"registration answered {_short(document)}")
        return stored

    def _list(self, base: str, path: str, kind: str, expected: str | None = None) -> str:
        head = self._http.head(base + path)
        _require(head.status_code == 200, f"HEAD answered {head.status_code}")
        _require(_is_stream(head), f"HEAD has content-type {head.headers.get('content-type')!r}")
        with self._events(base, path) as (_, events):
            event = next(events)
        _require(event.name == kind, f"the first event is {event.name!r}")
        if expected is not None:
            _require(expected in json.dumps(event.data), f"{expected} is not in the stream")
        return f"200, SSE, {len(event.data[kind])} {kind}"

    @contextmanager
    def _events(
        self, base: str, path: str, body: Json | None = None
    ) -> Iterator[tuple[httpx.Response, Iterator[Event]]]:
        request = self._http.build_request("POST" if body else "GET", base + path, headers=_SSE, json=body)
        answer = self._http.send(request, stream=True)
        try:
            _require(answer.status_code == 200, f"{path} answered {answer.status_code}")
            _require(_is_stream(answer), f"{path} has content-type {answer.headers.get('content-type')!r}")
            yield answer, _parse(answer)
        finally:
            answer.close()

    def _post(self, body: Json) -> httpx.Response:
        return self._http.post(f"{self._to.url}/mcp/tools/call", json=body)

    def _get(self, url: str) -> httpx.Response:
        return self._http.get(url, headers={"accept": "application/json"})

    def _names(self, base: str) -> set[str]:
        return {server["name"] for server in self._json(self._get(f"{base}/mcp/servers"))["servers"]}

    def _seen_at(self, base: str, name: str) -> None:
        deadline = time.monotonic() + 1.0
        while name not in self._names(base):
            _require(time.monotonic() < deadline, f"{name} was not to be seen at {base} within a second")
            time.sleep(0.02)

    def _both(self, name: str, arguments: Json) -> tuple[Json, Json]:
        params = {"name": name, "arguments": arguments}
        return params, self._rpc("tools/call", params)

    def _rpc(self, method: str, params: Json) -> Json:
        return {"jsonrpc": "2.0", "id": uuid.uuid4().hex, "method": method, "params": params}

    def _json(self, answer: httpx.Response) -> Json:
        _require(answer.status_code == 200, f"HTTP {answer.status_code}: {answer.text[:120]}")
        document: Json = answer.json()
        return document

    def _result(self, document: Json) -> Json:
        _require("result" in document, f"no result in {_short(document)}")
        result: Json = document["result"]
        return result


def _parse(answer: httpx.Response) -> Iterator[Event]:
    name, data = "message", ""
    for line in answer.iter_lines():
        field, _, value = line.partition(":")
        match field:
            case "event":
                name = value.strip()
            case "data":
                data += value.removeprefix(" ")
            case "" if not line and data:
                yield Event(name, json.loads(data), time.monotonic())
                name, data = "message", ""


def _is_stream(answer: httpx.Response) -> bool:
    return str(answer.headers.get("content-type", "")).startswith("text/event-stream")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Wrong(otherwise)


def _short(value: Any) -> str:
    return json.dumps(value)[:120]


CASES: tuple[tuple[str, str, str], ...] = (
    ("1.1", "GET /v1/mcp/registry.json", "200 JSON, the registered servers"),
    ("1.2", "GET /mcp/servers (SSE)", "200, no-cache, first event, then changes"),
    ("2.1", "GET stub /mcp/tools", "200, both tools"),
    ("3.1", "POST /mcp/servers, REST and JSON-RPC", "200, visible on each replica within 1 s"),
    ("3.2", "HEAD, GET /mcp/servers on replica 1", "200, SSE"),
    ("3.3", "HEAD, GET /mcp/servers on replica 2", "200, SSE"),
    ("4.1", "HEAD, GET /mcp/tools", "200, SSE, the stub's tools"),
    ("4.2", "HEAD, GET /mcp/resources", "200, SSE, the stub's resources"),
    ("5.1", "POST /mcp/tools/call stub.echo, both", "200 and the echo"),
    ("5.2", "the same, stub.nonexistent", "404 with its name; -32602"),
    ("6.1", "5.1 as SSE", "progress as it happens, then the result"),
    ("7.1", "20 calls, 5 at a time", "all 20 succeed"),
)


def run(deployment: Deployment, console: Console) -> int:
    """Judge a deployment; print the table; return how many cases passed."""
    table = Table("case", "request", "expected", "came", "", title=f"Validation of {deployment.url}")
    validation, passed = Validation(deployment), 0
    try:
        for number, request, expected in CASES:
            try:
                came = getattr(validation, f"case_{number.replace('.', '_')}")()
                passed += 1
                table.add_row(number, request, expected, came, "[green]pass")
            except Exception as error:
                said = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
                table.add_row(number, request, expected, said, "[red]FAIL")
    finally:
        validation.close()
    console.print(table)
    console.print(f"{passed} of {len(CASES)} passed")
    return passed


def _obstacle(deployment: Deployment) -> str | None:
    """One line that says why no case can be judged, or None."""
    headers = {"authorization": f"Bearer {deployment.key}", "accept": "application/json"}
    try:
        answer = httpx.get(f"{deployment.url}/mcp/servers", headers=headers, timeout=5, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"There is no gateway at {deployment.url} ({error}). `make ha` starts one; VALIDATE_URL names another."
    if answer.status_code in (401, 403):
        return f"The gateway at {deployment.url} refuses the key: set GATEWAY_MASTER_KEY to the one it takes."
    try:
        answer.json()["servers"]
    except (ValueError, KeyError, TypeError):
        return (
            f"What answers at {deployment.url} is no gateway (HTTP {answer.status_code}); VALIDATE_URL names another."
        )
    try:
        httpx.get(f"{deployment.stub}/tools", timeout=5, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return (
            f"There is no stub server at {deployment.stub} ({error}), which the cases call. `python -m gateway.stub "
            "--port 9100` is one; VALIDATE_STUB names its URL, as the gateway reaches it."
        )
    return None


def main() -> int:
    console = Console(width=None if sys.stdout.isatty() else 160)
    deployment = Deployment.from_environment(os.environ)
    if (obstacle := _obstacle(deployment)) is not None:
        console.print(obstacle, soft_wrap=True, markup=False, highlight=False)
        return 1
    return 0 if run(deployment, console) == len(CASES) else 1


if __name__ == "__main__":
    sys.exit(main())
