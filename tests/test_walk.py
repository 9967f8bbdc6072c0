"""What is not granted does not exist: a walk over every address, every method and every form of a name.

The key of the walk may see half of the server `half`, all of `whole`, and nothing of `hidden`; of toolsets it sees
`seen`, which holds the same, and not `hidden`. Each question about something hidden is asked again about something that
is not there (`absent` in place of `hidden`): the answers must be the same but for that word, after the same look-ups,
and no server may hear of either. The routes and the method table are read here, so that a new address or method fails
the walk until it is walked.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from gateway.edge.routes import BELOW_KEYS, BELOW_SERVERS, BELOW_TOOLSETS, PATHS, Door
from gateway.methods.table import METHODS
from gateway.protocol.messages import Notification
from gateway.registry import sync as sync_module
from gateway.sessions import get_stream
from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import KEY, Open, Servers
from tests.talk import BOTH, STREAM, ask, handshake, inside, next_message, request
from tests.waiting import until

pytestmark = pytest.mark.anyio

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
GRANTS = {
    "allow": [
        {"servers": ["half", "off"], "tools": ["shown*"], "prompts": ["shown*"], "resources": ["shown:*"]},
        {"servers": ["whole"]},
        {"servers": ["*"], "tools": ["nothing*"]},
        {"toolsets": ["seen"]},
    ],
    "deny": [{"resources": ["shown://secret/*"]}],
}
SEEN = {
    "include": [rule for rule in GRANTS["allow"] if "toolsets" not in rule],
    "results": {"max_bytes": 1_000_000, "overflow": "spill"},  # so that handles are read there
}
HIDDEN, ABSENT = "hidden", "absent"

TOOLS = ["half__{x}_zzz", "off__{x}_zzz", "{x}_zzz", "{x}__zzz", "whole__{x}_zzz"]
URIS = ["{x}://one", "{x}://item/5", "{x}://item/{{id}}", "mcp-gateway://half/{x}://one", "mcp-gateway://{x}/any://uri"]
SPELLED = ["shown://a/../{x}", "shown://a/%2e%2e/{x}", "SHOWN:a/..%5C{x}", "shown://secret/{x}", "Shown://%73ecret/{x}"]
SERVERS = [{"name": "{x}"}]
SOME_ID = {"id": "{x}000000"}

ASKED: dict[str, list[dict[str, Any]]] = {
    "initialize": [{"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}],
    "ping": [{}],
    "tools/list": [{}, {"cursor": "{x}"}],
    "tools/call": [{"name": name} for name in TOOLS]
    + [
        {"name": "search_tools", "arguments": arguments}
        for arguments in ({"query": "{x} zzz"}, {"query": "", "server": "{x}"}, {"query": ""})
    ]
    + [{"name": "describe_tools", "arguments": {"names": TOOLS}}, {"name": "read_result", "arguments": {"ref": "{x}"}}]
    + [{"name": meta, "arguments": {"name": name}} for meta in ("call_tool", "call_read_tool") for name in TOOLS],
    "resources/list": [{}],
    "resources/templates/list": [{}],
    "resources/read": [{"uri": uri} for uri in URIS + SPELLED],
    "resources/subscribe": [{"uri": uri} for uri in URIS + SPELLED],
    "resources/unsubscribe": [{"uri": uri} for uri in URIS + SPELLED],
    "prompts/list": [{}],
    "prompts/get": [{"name": name} for name in TOOLS],
    "completion/complete": [
        {"ref": ref, "argument": {"name": "a", "value": "b"}}
        for ref in [{"type": "ref/prompt", "name": name} for name in TOOLS]
        + [{"type": "ref/resource", "uri": uri} for uri in URIS + SPELLED]
    ],
    "logging/setLevel": [{"level": "info"}],
    "mcp.servers.list": [{}, {"server": "{x}"}, {"q": "{x}"}],
    "mcp.servers.get": SERVERS,
    "mcp.servers.register": [{"name": "{x}", "url": "http://x.test/"}],
    "mcp.servers.update": SERVERS,
    "mcp.servers.remove": SERVERS,
    "mcp.servers.refresh": SERVERS,
    "mcp.servers.changes": SERVERS,
    "mcp.servers.approve": SERVERS,
    "mcp.servers.digests": SERVERS,
    "mcp.servers.import": [{"text": '{"mcpServers": {"{x}": {"url": "http://x.test/"}}}'}],
    "mcp.servers.export": [{}],
    "mcp.openapi.preview": SERVERS,
    "mcp.toolsets.list": [{}, {"server": "{x}"}, {"q": "{x}"}],
    "mcp.toolsets.get": [{"slug": "{x}"}],
    "mcp.toolsets.create": [{"slug": "{x}"}],
    "mcp.toolsets.update": [{"slug": "{x}"}],
    "mcp.toolsets.remove": [{"slug": "{x}"}],
    "mcp.keys.create": [{"name": "{x}"}],
    "mcp.keys.list": [{}],
    "mcp.keys.get": [SOME_ID],
    "mcp.keys.update": [SOME_ID],
    "mcp.keys.revoke": [SOME_ID, {"owner": "{x}"}],
    "mcp.keys.rotate": [SOME_ID],
    "mcp.keys.access": [SOME_ID],
    "mcp.whoami": [{}],
    "mcp.audit.list": [{name: "{x}"} for name in ("server", "principal", "key_id", "request_id")],
}
"""What each method is asked; `{x}` stands for what is hidden or absent."""

SHOWN = {
    "tools/list": "shown_abc",
    "resources/list": "shown://one",
    "resources/templates/list": "shown://item/",
    "prompts/list": "shown_abc",
    "mcp.servers.list": "half",
    "mcp.toolsets.list": "seen",
}
"""What must be in a list, so that an empty one does not pass."""

ALONE = {
    "/rpc": "rpc",
    "/mcp/servers": "servers",
    "/mcp/toolsets": "toolsets",
    "/mcp/toolsets/seen/rpc": "toolset",
    "/keys": "keys",
} | {f"/mcp/{name}": name for name in ("tools/call", "resources/read", "prompts/get")}
"""Where JSON-RPC is spoken outside MCP, and which methods are served there."""

LISTED = [("GET", "", None), ("GET", "?q={x}", None), ("GET", "?server={x}", None), ("HEAD", "", None)]
ONE_SERVER: dict[str, list[tuple[str, str, Any]]] = {
    "": [
        *[(method, "/mcp/servers/{x}", None) for method in ("GET", "HEAD", "DELETE")],
        ("PUT", "/mcp/servers/{x}", {"url": "http://x.test/"}),
        ("PATCH", "/mcp/servers/{x}", {"title": "x"}),
    ],
    "mcp": [
        ("POST", "/mcp/servers/{x}/mcp", request("initialize", **ASKED["initialize"][0])),
        ("GET", "/mcp/servers/{x}/mcp", None),
        ("DELETE", "/mcp/servers/{x}/mcp", None),
    ],
    "refresh": [("POST", "/mcp/servers/{x}/refresh", None)],
    "changes": [(method, "/mcp/servers/{x}/changes", None) for method in ("GET", "HEAD")],
    "approve": [("POST", "/mcp/servers/{x}/approve", {"tools": ["{x}_zzz"]})],
    "digests": [(method, "/mcp/servers/{x}/digests", None) for method in ("GET", "HEAD", "POST")],
}
ONE_TOOLSET: dict[str, list[tuple[str, str, Any]]] = {
    "": [
        *[(method, "/mcp/toolsets/{x}", None) for method in ("GET", "HEAD", "DELETE")],
        ("PUT", "/mcp/toolsets/{x}", {"include": [{"servers": ["half"]}]}),
        ("PATCH", "/mcp/toolsets/{x}", {"title": "x"}),
    ],
    "mcp": [
        ("POST", "/mcp/toolsets/{x}/mcp", request("initialize", **ASKED["initialize"][0])),
        ("GET", "/mcp/toolsets/{x}/mcp", None),
        ("DELETE", "/mcp/toolsets/{x}/mcp", None),
    ],
    "rpc": [("POST", "/mcp/toolsets/{x}/rpc", request("ping"))],
    "sse": [("GET", "/mcp/toolsets/{x}/sse", None)],
    "messages": [("POST", "/mcp/toolsets/{x}/messages?session_id={x}", request("ping"))],
    **{
        name: [
            (method, f"/mcp/toolsets/{slug}/{name}{query}", None)
            for method in ("GET", "HEAD")
            for slug, query in (("{x}", ""), ("seen", ""), ("seen", "?server={x}"))
        ]
        for name in ("tools", "resources", "prompts")
    },
    **{
        name: [("POST", f"/mcp/toolsets/{slug}/{name}", each) for slug in ("{x}", "seen") for each in ASKED[name]]
        for name in ("tools/call", "resources/read", "prompts/get")
    },
}
ONE_KEY: dict[str, list[tuple[str, str, Any]]] = {
    "": [(method, "/keys/{x}000000", {}) for method in ("GET", "HEAD", "PATCH", "DELETE")],
    "rotate": [("POST", "/keys/{x}000000/rotate", None)],
    "access": [(method, "/keys/{x}000000/access", None) for method in ("GET", "HEAD", "POST")],
}
PLAIN: dict[str, list[tuple[str, str, Any]]] = {
    "/mcp": [("POST", "", request("ping")), ("GET", "", None), ("DELETE", "", None)],
    "/sse": [],  # walked by the old transport
    "/messages": [("POST", "?session_id={x}", request("ping"))],
    "/rpc": [("POST", "", request("ping"))],
    "/mcp/servers": [*LISTED, ("POST", "", {"name": "{x}", "url": "http://x.test/"})],
    "/mcp/toolsets": [*LISTED, ("POST", "", {"slug": "{x}"})],
    "/mcp/import": [("POST", "", {"text": '{"mcpServers": {"{x}": {"url": "http://x.test/"}}}'})],
    "/mcp/openapi/preview": [("POST", "", {"name": "{x}"})],
    "/mcp/export": [("GET", "", None), ("HEAD", "", None)],
    "/mcp/tools": LISTED,
    "/mcp/resources": LISTED,
    "/mcp/prompts": LISTED,
    "/mcp/tools/call": [("POST", "", params) for params in ASKED["tools/call"]],
    "/mcp/resources/read": [("POST", "", params) for params in ASKED["resources/read"]],
    "/mcp/prompts/get": [("POST", "", params) for params in ASKED["prompts/get"]],
    "/v1/mcp/registry.json": [("GET", "", None), ("HEAD", "", None), ("OPTIONS", "", None)],
    "/v0.1/servers": [
        *[("GET", query, None) for query in ("", "?search={x}", "?cursor={x}", "/local%2F{x}/versions")],
        ("GET", "/local/{x}/versions/latest", None),
        ("HEAD", "", None),
        ("OPTIONS", "", None),
    ],
    "/keys": [
        *[(method, "", None) for method in ("GET", "HEAD")],
        ("POST", "", {"name": "{x}"}),
        ("DELETE", "?owner={x}", None),
    ],
    "/audit": [(method, f"?{name}={{x}}", None) for method in ("GET", "HEAD") for name in ("server", "principal")],
    "/whoami": [("GET", "", None), ("HEAD", "", None)],
    "/page/session": [("GET", "", None), ("HEAD", "", None), ("POST", "", {"key": "{x}"}), ("DELETE", "", None)],
    "/page/events": [],  # walked by itself
    "/openapi.json": [("GET", "", None), ("HEAD", "", None)],
    "/readyz": [("GET", "", None), ("HEAD", "", None)],
    "/metrics": [("GET", "", None), ("HEAD", "", None)],
}
"""What is asked at each address, by what comes after it."""


@pytest.fixture
async def agent(open_app: Open, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """Somebody who may see half."""
    monkeypatch.setattr(sync_module, "_LOOK_AT_MOST_EVERY", 0)  # so that each unknown name costs the same look
    monkeypatch.setattr(get_stream, "_AGGREGATE_WAITS", 0.3)
    async with open_app(page_size=2) as (app, admin):
        servers["half"] = MemoryServer(
            tools=dict.fromkeys(["shown_abc", "shown_def", "shown_ghi", "hidden_zzz"], _fine),
            prompts=[{"name": "shown_abc"}, {"name": "hidden_zzz"}],
            resources=[{"uri": "shown://one", "name": "s"}, {"uri": "hidden://one", "name": "h"}],
            templates=[
                {"uriTemplate": "shown://item/{id}", "name": "s"},
                {"uriTemplate": "shown:{+any}", "name": "s"},
                {"uriTemplate": "hidden://item/{id}", "name": "h"},
            ],
            instructions="Use the hidden tools.",
        )
        servers["hidden"] = MemoryServer(
            tools=dict.fromkeys(["zzz", "shown_abc"], _fine),
            prompts=[{"name": "zzz"}],
            resources=[{"uri": "any://uri", "name": "h"}],
            templates=[{"uriTemplate": "{+hidden}", "name": "h"}],
        )
        servers["off"] = MemoryServer(tools=dict.fromkeys(["shown_abc", "hidden_zzz"], _fine))
        servers["off"].prompts = [{"name": "hidden_zzz"}]
        servers["whole"] = MemoryServer()
        for name in ("half", "hidden", "off", "whole"):
            spec = {"name": name, "url": f"http://{name}.test/mcp", "tags": [name]}
            status, _, stored = await admin.ask("POST", "/mcp/servers", value=spec)
            assert (status, stored["state"]) == (200, "ready")
        assert (await admin.ask("POST", "/mcp/tools/call", value={"name": "hidden__zzz"}))[0] == 200  # a figure has it
        await admin.ask("PATCH", "/mcp/servers/off", value={"enabled": False})
        for slug, made in (("seen", SEEN), ("hidden", {"title": "hidden", "include": [{"servers": ["*"]}]})):
            assert (await admin.ask("PUT", f"/mcp/toolsets/{slug}", value=made))[0] == 200
        _, _, key = await admin.ask("POST", "/keys", value={"name": "agent", "grants": GRANTS})
        for kind in (
            "servers",
            "toolsets",
            "tools",
            "resources",
            "prompts",
        ):  # what is encoded for others is not for the agent
            for accept in ("application/json", "*/*"):
                await admin.ask("GET", f"/mcp/{kind}", headers={"accept": accept})
        for address in ("/mcp", "/mcp/servers/half/mcp", "/mcp/toolsets/seen/mcp", "/mcp/toolsets/hidden/mcp"):
            session = await handshake(admin, address)
            for method in ("tools/list", "resources/list", "resources/templates/list", "prompts/list"):
                await ask(admin, address, session, method)
        yield Client(app, key["key"])


async def _fine(*_: Any) -> Any:
    return {"content": [{"type": "text", "text": "fine"}]}


def filled(value: Any, word: str) -> Any:
    """A question about `word`."""
    if isinstance(value, str):
        return value.replace("{x}", word).replace("{{", "{").replace("}}", "}")
    if isinstance(value, dict):
        return {name: filled(each, word) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, word) for each in value]
    return value


Send = Callable[[Any], Awaitable[tuple[int, str]]]


async def compare(agent: Client, servers: Servers, question: Any, send: Send, label: str) -> str:
    """Ask about what is hidden and about what is absent; return the answer, which must be the same."""
    gateway = inside(agent.app)  # type: ignore[arg-type]
    answers = []
    for word in (HIDDEN, ABSENT):
        for server in servers.values():
            server.requests.clear()
        looks, looked = 0, gateway.sync.look_for_caller

        async def look(counted: Callable[[], Awaitable[None]] = looked) -> None:
            nonlocal looks
            looks += 1
            await counted()

        gateway.sync.look_for_caller = look  # type: ignore[method-assign]
        try:
            status, text = await send(filled(question, word))
        finally:
            gateway.sync.look_for_caller = looked  # type: ignore[method-assign]
        asked = {name: [each.method for each in server.requests] for name, server in servers.items()}
        heard = [
            json.dumps([each.method, dict(each.params)]) for server in servers.values() for each in server.requests
        ]
        assert not any(word in each for each in heard), f"{label}: a server heard of {heard}"
        assert not asked["hidden"], f"{label}: the hidden server was asked {asked['hidden']}"
        text = re.sub(
            r'"(revision|lag_seconds)": ?[0-9.]+', r'"\1":0', text.replace(ABSENT, HIDDEN)
        )  # these may differ
        answers.append((status, text, looks, asked))
    assert answers[0] == answers[1], label
    return answers[0][1]


def without_echo(text: str, question: Any) -> str:
    """An answer without what the question said."""
    said = [each for each in re.split('["/?=&]', json.dumps(filled(question, HIDDEN))) if HIDDEN in each]
    said += [each for each in json.dumps(filled(question, HIDDEN)).split('"') if HIDDEN in each]
    for each in sorted(said, key=len, reverse=True):
        text = text.replace(each, "")
    return text


def check_answer(method: str, text: str, question: Any, label: str) -> None:
    assert HIDDEN not in without_echo(text, question).lower(), f"{label}: {text}"
    if method in SHOWN and not (isinstance(question, Mapping) and question):
        assert SHOWN[method] in text, f"{label}: {text}"


# --- every method -----------------------------------------------------------------------------------------------------


def test_every_method_is_walked() -> None:
    spelled = {
        name.replace("/", ".") if name.startswith("mcp/") else name for table in METHODS.values() for name in table
    }
    assert spelled - {"mcp.servers.replace", "mcp.toolsets.replace"} == ASKED.keys()
    assert METHODS.keys() == {"aggregate", "server", "rest"} | set(ALONE.values())


@pytest.mark.parametrize("version", REVISIONS)
@pytest.mark.parametrize(
    "address",
    [
        f"{address}{mode}"
        for address in ("/mcp", "/mcp/servers/half/mcp", "/mcp/toolsets/seen/mcp")
        for mode in ("", "?tools=search")
    ],
)
async def test_mcp(agent: Client, servers: Servers, address: str, version: str) -> None:
    session = await handshake(agent, address, version)
    for method in METHODS["server" if "/servers/" in address else "aggregate"]:
        for params in ASKED[method]:
            label = f"{address} {version} {method} {params}"

            async def send(params: Any, method: str = method) -> tuple[int, str]:
                headers = BOTH if method == "initialize" else session
                body = request(method, **params)
                async with agent.open("POST", address, value=body, headers=headers) as answer:
                    return answer.status, (await answer.body()).decode()

            text = await compare(agent, servers, params, send, label)
            is_searching = address.endswith("=search")
            check_answer("" if is_searching and method == "tools/list" else method, text, params, label)
            is_meta = is_searching and str(params.get("name")).endswith("_tools")
            is_meta = is_meta or ("toolsets" in address and params.get("name") == "read_result")
            if method in ("tools/call", "resources/read", "prompts/get"):
                assert ('"error"' in text) is not is_meta, label


@pytest.mark.parametrize("address", ALONE)
async def test_json_rpc(agent: Client, servers: Servers, address: str) -> None:
    for method in METHODS[ALONE[address]]:
        known = method.replace("/", ".") if method.startswith("mcp/") else method
        for params in ASKED[known]:
            for in_batch in (False, True):
                label = f"{address} {method} {params} {'batch' if in_batch else ''}"

                async def send(params: Any, method: str = method, in_batch: bool = in_batch) -> tuple[int, str]:
                    body = request(method, **params)
                    status, _, answer = await agent.ask("POST", address, value=[body, body] if in_batch else body)
                    return status, json.dumps(answer)

                text = await compare(agent, servers, params, send, label)
                check_answer(known, text, params, label)


async def test_batches_of_a_session(agent: Client, servers: Servers) -> None:
    session = await handshake(agent, "/mcp", "2025-03-26")
    for method in METHODS["aggregate"]:
        for params in ASKED[method]:

            async def send(params: Any, method: str = method) -> tuple[int, str]:
                body = [request(method, 1, **params), request("ping", 2)]
                async with agent.open("POST", "/mcp", value=body, headers=session) as answer:
                    return answer.status, (await answer.body()).decode()

            text = await compare(agent, servers, params, send, f"batch {method} {params}")
            check_answer(method, text, params, f"batch {method} {params}")


@pytest.mark.parametrize("address", ["/sse", "/sse?tools=search", "/mcp/toolsets/seen/sse"])
async def test_the_old_transport(agent: Client, servers: Servers, address: str) -> None:
    async with agent.open("GET", address, headers=STREAM) as stream:
        endpoint = await stream.event()
        assert endpoint is not None
        for method in METHODS["aggregate"]:
            for params in ASKED[method]:

                async def send(params: Any, method: str = method) -> tuple[int, str]:
                    body = request(method, **params)
                    async with agent.open("POST", endpoint.data.decode(), value=body) as taken:
                        assert taken.status == 202
                        event = await stream.event()
                    return 200, event.data.decode() if event else ""

                text = await compare(agent, servers, params, send, f"{address} {method} {params}")
                is_short = address.endswith("=search") and method == "tools/list"
                check_answer("" if is_short else method, text, params, f"{address} {method} {params}")


# --- every address ----------------------------------------------------------------------------------------------------


def test_every_address_is_walked() -> None:
    closed = {path for path, route in PATHS.items() if route.door is not Door.OPEN}
    assert closed == PLAIN.keys()
    assert BELOW_SERVERS.keys() == ONE_SERVER.keys()
    assert BELOW_TOOLSETS.keys() == ONE_TOOLSET.keys()
    assert BELOW_KEYS.keys() == ONE_KEY.keys()
    below = (BELOW_SERVERS, ONE_SERVER), (BELOW_TOOLSETS, ONE_TOOLSET), (BELOW_KEYS, ONE_KEY)
    for routes, asked in ((PATHS, PLAIN), *below):
        for path, questions in asked.items():
            assert path in ("/sse", "/page/events") or {method for method, _, _ in questions} == set(
                routes[path].methods or ()
            ), path


async def test_rest(agent: Client, servers: Servers) -> None:
    questions = [(method, f"{path}{rest}", body) for path, each in PLAIN.items() for method, rest, body in each]
    questions += [
        question for part in (ONE_SERVER, ONE_TOOLSET, ONE_KEY) for each in part.values() for question in each
    ]
    for accept in ("application/json", "*/*", "text/event-stream"):
        for question in questions:
            is_live = accept == "text/event-stream" and question[0] == "GET"
            if is_live and question[1].partition("?")[0] not in ("/mcp/servers", "/mcp/tools"):
                continue

            async def send(asked: Any, accept: str = accept, is_live: bool = is_live) -> tuple[int, str]:
                headers = {"accept": accept}
                how = asked["body"]
                async with agent.open(asked["method"], asked["path"], value=how, headers=headers) as answer:
                    if is_live:
                        event = await answer.event()
                        return answer.status, event.data.decode() if event else ""
                    return answer.status, (await answer.body()).decode()

            method, path, body = question
            asked = {"method": method, "path": path, "body": body}
            label = f"{accept} {method} {path} {body}"
            text = await compare(agent, servers, asked, send, label)
            assert HIDDEN not in without_echo(text.replace(f"local/{HIDDEN}", ""), asked).lower(), f"{label}: {text}"
            if method == "GET" and path in ("/mcp/servers", "/mcp/tools", "/mcp/prompts", "/v1/mcp/registry.json"):
                assert "shown" in text or "half" in text, label


async def test_the_page_is_fed_with_what_may_be_seen(agent: Client, servers: Servers) -> None:
    admin = Client(agent.app, KEY)
    async with agent.open("GET", "/page/events", headers=STREAM) as stream:
        told = [await stream.event(), await stream.event()]
        assert [each.name if each else "" for each in told] == ["hello", "servers"]
        text = "".join(each.data.decode() for each in told if each)
        assert HIDDEN not in text
        assert {each["name"] for each in json.loads(told[1].data if told[1] else b"")["servers"]} >= {"half", "whole"}
        await admin.ask("POST", "/mcp/tools/call", value={"name": "half__hidden_zzz"})
        await admin.ask("PATCH", "/mcp/servers/hidden", value={"title": "other"})
        servers["half"].tools["hidden_new"] = _fine
        await admin.ask("POST", "/mcp/servers/half/refresh")
        await agent.ask("POST", "/mcp/tools/call", value={"name": "half__shown_abc"})
        event = await stream.event()  # the first that it hears is its own call
        assert event is not None
        assert event.name == "calls"
        assert {row["tool"] for row in json.loads(event.data)["rows"]} == {"shown_abc"}
        servers["half"].tools["shown_new"] = _fine
        await admin.ask("POST", "/mcp/servers/half/refresh")
        names = set()
        while "changed" not in names:
            event = await stream.event()
            assert event is not None
            assert HIDDEN not in event.data.decode()
            names.add(event.name)
        assert not names & {"figures", "workers"}


# --- what is said without being asked ---------------------------------------------------------------------------------


async def test_what_changes_out_of_sight_is_not_told(agent: Client, servers: Servers) -> None:
    gateway = inside(agent.app)  # type: ignore[arg-type]
    own, toolset = "/mcp/servers/half/mcp", "/mcp/toolsets/seen/mcp"
    sessions = {address: await handshake(agent, address) for address in ("/mcp", own, toolset)}
    await ask(agent, own, sessions[own], "tools/call", name="shown_abc")
    for address in ("/mcp", toolset):
        await ask(agent, address, sessions[address], "tools/call", name="half__shown_abc")
    async with (
        agent.open("GET", "/mcp", headers={**sessions["/mcp"], **STREAM}) as aggregate,
        agent.open("GET", own, headers={**sessions[own], **STREAM}) as alone,
        agent.open("GET", toolset, headers={**sessions[toolset], **STREAM}) as chosen,
        agent.open("GET", "/mcp/tools", headers=STREAM) as listed,
        agent.open("GET", "/mcp/servers", headers=STREAM) as registry,
    ):
        for stream in (listed, registry):
            await stream.event()
        await until(lambda: len(servers["half"].streams) == 3)
        for server, name in (("hidden", "hidden_new"), ("half", "hidden_new"), ("half", "shown_new")):
            servers[server].tools[name] = _fine
            servers[server].say(Notification("notifications/tools/list_changed"))
            await gateway.discovery.discover(server, 5.0)
            await until(lambda name=name, server=server: name in str(gateway.sync.catalogue.servers[server].names))  # type: ignore[misc]
            if name == "hidden_new":
                servers["half"].say(Notification("notifications/resources/updated", {"uri": "hidden://one"}))
                await asyncio.sleep(1.5)  # longer than any of the streams would wait to tell it
                waiting = [stream._chunks.qsize() for stream in (listed, registry)]
                assert waiting == [0, 0], server
        for stream in (aggregate, alone, chosen):
            message = await next_message(stream)
            assert message["method"] == "notifications/tools/list_changed"
        event = await listed.event()
        assert event is not None
        assert b"shown_new" in event.data
        assert HIDDEN.encode() not in event.data
        assert aggregate._chunks.qsize() == alone._chunks.qsize() == chosen._chunks.qsize() == 0


# --- what was given to somebody else ----------------------------------------------------------------------------------


async def test_cursors_name_nothing_that_is_hidden(agent: Client, servers: Servers) -> None:
    for address in ("/mcp", "/mcp/servers/half/mcp", "/mcp/toolsets/seen/mcp"):
        session = await handshake(agent, address)
        cursor, seen = None, []
        while True:
            params: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
            page = await ask(agent, address, session, "tools/list", **params)
            seen += [item["name"] for item in page["tools"] if item["name"] != "read_result"]
            cursor = page.get("nextCursor")
            if cursor is None:
                break
            assert HIDDEN.encode() not in base64.urlsafe_b64decode(cursor)
        assert len(seen) == (3 if "/servers/" in address else 4)


async def test_sessions_and_events_of_others_do_not_exist(agent: Client, servers: Servers) -> None:
    admin = Client(agent.app, "test-key-of-the-gateway")
    theirs = await handshake(admin)
    made_up = theirs | {"mcp-session-id": "A" * len(theirs["mcp-session-id"])}
    answers = [await agent.ask("POST", "/mcp", value=request("ping"), headers=each) for each in (theirs, made_up)]
    assert answers[0][0] == answers[1][0] == 404
    assert answers[0][2] == answers[1][2]
    body = request("tools/call", 1, name="hidden__zzz")
    async with admin.open("POST", "/mcp", value=body, headers={**theirs, **STREAM}) as stream:
        await stream.prime()
        event = stream.primings[0].id
        await stream.events()
    mine = await handshake(agent)
    answers = [
        await agent.ask("GET", "/mcp", headers={**mine, **STREAM, "last-event-id": each})
        for each in (event, "0" * len(event or ""))
    ]
    assert answers[0][0] == answers[1][0] == 400
    assert HIDDEN not in str(answers)


async def test_a_bare_name_is_looked_for_in_what_is_seen(agent: Client, servers: Servers) -> None:
    """`shown_abc` is a tool of two servers, of which one is seen."""
    status, _, answer = await agent.ask("POST", "/mcp/tools/call", value={"name": "shown_abc"})
    assert (status, answer["server"]) == (200, "half")
    admin = Client(agent.app, "test-key-of-the-gateway")
    assert (await admin.ask("POST", "/mcp/tools/call", value={"name": "shown_abc"}))[0] == 409


async def test_what_is_granted_works_at_every_address(agent: Client, servers: Servers) -> None:
    for address, prefix in (("/mcp", "half__"), ("/mcp/toolsets/seen/mcp", "half__"), ("/mcp/servers/half/mcp", "")):
        session = await handshake(agent, address)
        called = await ask(agent, address, session, "tools/call", name=f"{prefix}shown_abc", arguments={})
        assert called["content"][0]["text"] == "fine"
        for uri in ("shown://one", "shown://item/5"):
            assert (await ask(agent, address, session, "resources/read", uri=uri))["params"]["uri"] == uri
        ref = {"type": "ref/resource", "uri": "shown://item/{id}"}
        done = await ask(agent, address, session, "completion/complete", ref=ref, argument={"name": "id", "value": ""})
        assert done["echo"] == "completion/complete"
        got = await ask(agent, address, session, "prompts/get", name=f"{prefix}shown_abc")
        assert got["params"]["name"] == "shown_abc"
    read = await ask(agent, address, session, "resources/read", uri="SHOWN://item/%7e5")
    assert read["params"]["uri"] == "shown://item/~5"
