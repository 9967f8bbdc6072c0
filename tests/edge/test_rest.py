import asyncio
import json
from typing import Any

import psycopg
import pytest

from gateway.edge.app import Application
from gateway.errors import UpstreamProtocolError
from gateway.protocol.exchange import Hello
from gateway.protocol.messages import Message, Notification, Request
from gateway.upstream.contract import UpstreamSession
from gateway.upstream.memory import Emit, MemoryServer, MemoryUpstream
from tests.asgi import Client
from tests.fix_gateway import KEY, Open, Servers

pytestmark = pytest.mark.anyio
SSE = {"accept": "text/event-stream"}
JSON = {"accept": "application/json"}


async def steps(request: Request, emit: Emit) -> Any:
    token = request.params["_meta"]["progressToken"]
    for step in (1, 2):
        await emit(Notification("notifications/progress", {"progressToken": token, "progress": step}))
    await emit(Notification("notifications/message", {"level": "info", "data": "hi"}))
    return {"content": []}


async def fails(request: Request, emit: Emit) -> Any:
    return {"content": [], "isError": True}


class Slow:
    """A tool that never ends by itself, and tells that it began and that it was left."""

    def __init__(self) -> None:
        self.began, self.left = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: Request, emit: Emit) -> Any:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()


async def test_a_server_is_stored_shown_changed_and_removed(client: Client, servers: Servers) -> None:
    servers["a"] = MemoryServer()
    spec = {"name": "a", "url": "http://a.test/mcp", "headers": {"X-Key": "s3cret"}, "metadata": {"team": "x"}}
    status, _, stored = await client.ask("POST", "/mcp/servers", value=spec)
    assert status == 200
    assert (stored["state"], stored["counts"]["tools"], stored["headers"]) == ("ready", 1, {"X-Key": "[redacted]"})
    assert (await client.ask("POST", "/mcp/servers", value=spec))[2]["created_at"] == stored["created_at"]
    assert (await client.ask("GET", "/mcp/servers/a"))[2]["metadata"] == {"team": "x"}
    status, _, patched = await client.ask("PATCH", "/mcp/servers/a", value={"description": "new"})
    assert (status, patched["description"], patched["headers"]) == (200, "new", {"X-Key": "[redacted]"})
    status, _, put = await client.ask("PUT", "/mcp/servers/a", value={"url": "http://a.test/mcp"})
    assert (status, put["headers"], put["description"]) == (200, {}, "")
    assert (await client.ask("DELETE", "/mcp/servers/a"))[0] == 200
    assert (await client.ask("GET", "/mcp/servers/a"))[0] == 404


async def test_a_taken_name_is_a_conflict(client: Client, registered: MemoryServer) -> None:
    status, headers, problem = await client.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://b.test/"})
    assert (status, headers["content-type"]) == (409, "application/problem+json")
    assert "demo" in problem["detail"]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_server_that_is_not_there_is_404(client: Client, method: str) -> None:
    status, _, problem = await client.ask(method, "/mcp/servers/nobody", value={} if method == "PATCH" else None)
    assert (status, problem["server"]) == (404, "nobody")


async def test_a_server_that_is_down_registers_and_says_why(client: Client, servers: Servers) -> None:
    servers["a"] = MemoryServer(down="it sleeps")
    status, _, stored = await client.ask("POST", "/mcp/servers", value={"name": "a", "url": "http://a.test/mcp"})
    assert (status, stored["state"]) == (200, "unreachable")
    assert "it sleeps" in stored["reason"]


async def test_refresh_asks_now(client: Client, registered: MemoryServer) -> None:
    registered.tools["second"] = fails
    status, _, shown = await client.ask("POST", "/mcp/servers/demo/refresh")
    assert (status, shown["counts"]["tools"]) == (200, 2)


@pytest.mark.parametrize("name", ["demo__echo", "echo"])
async def test_a_tool_is_called_by_its_public_or_bare_name(client: Client, registered: MemoryServer, name: str) -> None:
    body = {"name": name, "arguments": {"x": 1}}
    status, _, answer = await client.ask("POST", "/mcp/tools/call", value=body)
    assert (status, answer["server"], answer["tool"]) == (200, "demo", "demo__echo")
    assert answer["result"]["content"][0]["text"] == "{'x': 1}"
    assert registered.requests[-1].params["name"] == "echo"


async def test_both_bodies_give_the_same_result(client: Client, registered: MemoryServer) -> None:
    params = {"name": "echo", "arguments": {"x": 1}}
    rest = (await client.ask("POST", "/mcp/tools/call", value=params))[2]
    rpc = {"jsonrpc": "2.0", "id": "mine", "method": "tools/call", "params": params}
    answer = (await client.ask("POST", "/mcp/tools/call", value=rpc))[2]
    assert answer == {"jsonrpc": "2.0", "id": "mine", "result": rest["result"]}


async def test_an_unknown_tool_is_named_in_both_protocols(client: Client, registered: MemoryServer) -> None:
    status, _, problem = await client.ask("POST", "/mcp/tools/call", value={"name": "stub.none"})
    assert status == 404
    assert "stub.none" in problem["detail"]
    rpc = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "stub.none"}}
    status, _, answer = await client.ask("POST", "/mcp/tools/call", value=rpc)
    assert (status, answer["id"], answer["error"]["code"]) == (200, 1, -32602)


async def test_a_tools_own_failure_is_a_result(client: Client, registered: MemoryServer) -> None:
    registered.tools["fails"] = fails
    await client.ask("POST", "/mcp/servers/demo/refresh")
    status, _, answer = await client.ask("POST", "/mcp/tools/call", value={"name": "fails"})
    assert (status, answer["result"]["isError"]) == (200, True)


async def test_an_unreachable_server_is_502_and_its_timeout_504(
    client: Client, registered: MemoryServer, servers: Servers
) -> None:
    registered.tools["slow"] = Slow()
    await client.ask("PATCH", "/mcp/servers/demo", value={"timeout_seconds": 0.05})
    status, _, problem = await client.ask("POST", "/mcp/tools/call", value={"name": "slow"})
    assert (status, problem["server"]) == (504, "demo")
    registered.down = "gone fishing"
    status, _, problem = await client.ask("POST", "/mcp/tools/call", value={"name": "echo"})
    assert (status, problem["server"]) == (502, "demo")


async def test_progress_and_log_come_before_the_result(client: Client, registered: MemoryServer) -> None:
    registered.tools["steps"] = steps
    await client.ask("POST", "/mcp/servers/demo/refresh")
    async with client.open("POST", "/mcp/tools/call", value={"name": "steps"}, headers=SSE) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        events = await answer.events()
    assert [event.name for event in events] == ["progress", "progress", "log", "result"]
    assert json.loads(events[-1].data) == {"server": "demo", "tool": "demo__steps", "result": {"content": []}}


async def test_an_error_in_a_stream_is_an_event(client: Client, registered: MemoryServer) -> None:
    async with client.open("POST", "/mcp/tools/call", value={"name": "nope"}, headers=SSE) as answer:
        [event] = await answer.events()
    assert (event.name, json.loads(event.data)["status"]) == ("error", 404)


async def test_the_gateway_chooses_json_for_a_silent_call_where_it_may(
    client: Client, registered: MemoryServer
) -> None:
    both = {"accept": "application/json, text/event-stream"}
    _, headers, _ = await client.ask("POST", "/mcp/tools/call", value={"name": "echo"}, headers=both)
    assert headers["content-type"] == "application/json"
    registered.tools["steps"] = steps
    await client.ask("POST", "/mcp/servers/demo/refresh")
    _, headers, _ = await client.ask("POST", "/mcp/tools/call", value={"name": "steps"}, headers=both)
    assert headers["content-type"] == "text/event-stream"


async def test_a_hang_up_cancels_the_call_upstream(client: Client, registered: MemoryServer) -> None:
    slow = registered.tools["slow"] = Slow()
    await client.ask("POST", "/mcp/servers/demo/refresh")
    async with client.open("POST", "/mcp/tools/call", value={"name": "slow"}, headers=SSE):
        async with asyncio.timeout(10):
            await slow.began.wait()
    async with asyncio.timeout(10):
        await slow.left.wait()
    cancelled: list[Message] = [
        message for message in registered.posted if isinstance(message, Notification) and "cancelled" in message.method
    ]
    assert len(cancelled) == 1


async def test_resources_and_prompts_are_read_by_rest(client: Client, servers: Servers) -> None:
    servers["a"] = MemoryServer(prompts=[{"name": "p"}], resources=[{"uri": "x://1", "name": "one"}])
    await client.ask("POST", "/mcp/servers", value={"name": "a", "url": "http://a.test/mcp"})
    _, _, read = await client.ask("POST", "/mcp/resources/read", value={"uri": "x://1"})
    assert read == {"echo": "resources/read", "params": {"uri": "x://1"}}
    _, _, got = await client.ask("POST", "/mcp/prompts/get", value={"name": "a__p", "arguments": {"k": "v"}})
    assert got["params"] == {"name": "p", "arguments": {"k": "v"}}
    assert (await client.ask("POST", "/mcp/resources/read", value={"uri": "x://2"}))[0] == 404
    assert (await client.ask("POST", "/mcp/prompts/get", value={"name": "q"}))[0] == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/mcp/tools/call", b"{", 400),
        ("/mcp/tools/call", b"", 400),
        ("/mcp/tools/call", b"\xff", 400),
        ("/mcp/tools/call", b"3", 422),
        ("/mcp/tools/call", b"{}", 422),
        ("/mcp/tools/call", b'{"name": 3}', 422),
        ("/mcp/tools/call", b'{"name": "echo", "arguments": []}', 422),
        ("/mcp/tools/call", b'{"name": "echo", "tool_name": "other"}', 422),
        ("/mcp/tools/call", b'{"name": "echo", "args": {}}', 422),
        ("/mcp/servers", b'{"url": "http://x/"}', 422),
        ("/mcp/servers", b'{"name": "x"}', 422),
        ("/mcp/servers", b'{"name": "a b", "url": "http://x/"}', 422),
        ("/mcp/servers", b'{"name": "a", "url": "http://x/", "n": 123456789012345678901234}', 400),
        ("/mcp/resources/read", b"{}", 422),
        ("/mcp/prompts/get", b'{"name": "p", "arguments": 3}', 422),
    ],
)
async def test_a_malformed_body_is_a_problem_that_says_what_to_fix(
    client: Client, path: str, body: bytes, status: int
) -> None:
    got, headers, problem = await client.ask("POST", path, body=body)
    assert (got, headers["content-type"]) == (status, "application/problem+json")
    assert {"type", "title", "status", "detail"} <= set(problem)
    assert "Traceback" not in problem["detail"]


async def test_a_body_over_the_bound_is_413(client: Client) -> None:
    status, _, problem = await client.ask("POST", "/mcp/tools/call", body=b"x" * (5 << 20))
    assert (status, problem["limit"]) == (413, 4 << 20)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/mcp/servers", "GET, HEAD, POST"),
        ("POST", "/mcp/servers/demo", "GET, HEAD, PUT, PATCH, DELETE"),
        ("GET", "/mcp/tools/call", "POST"),
        ("GET", "/rpc", "POST"),
        ("POST", "/mcp/tools", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_and_says_which_is_right(
    client: Client, method: str, path: str, allowed: str
) -> None:
    status, headers, _ = await client.ask(method, path)
    assert (status, headers["allow"]) == (405, allowed)


async def test_who_accepts_neither_json_nor_events_is_told_so(client: Client, registered: MemoryServer) -> None:
    for method, path in (("POST", "/mcp/tools/call"), ("GET", "/mcp/tools")):
        value = {"name": "echo"} if method == "POST" else None
        status, _, _ = await client.ask(method, path, value=value, headers={"accept": "text/html"})
        assert (status, path) == (406, path) if method == "GET" else status in (406,)


@pytest.mark.parametrize("key", [None, KEY])
async def test_a_refused_body_is_read_to_its_end_so_that_the_refusal_arrives(app: Application, key: str | None) -> None:
    left = [b"x" * (1 << 20)] * 8
    order: list[str] = []

    async def receive() -> Any:
        order.append("receive")
        return {"type": "http.request", "body": left.pop(), "more_body": bool(left)}

    async def send(message: Any) -> None:
        order.append(message["type"])

    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {key}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/mcp/tools/call", "headers": headers, "query_string": b""}
    await app(scope, receive, send)
    assert order == ["receive"] * 8 + ["http.response.start", "http.response.body"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/mcp",
        "http://0x7f.1/",
        "http://[::1]/",
        "http://169.254.169.254/latest",
        "http://db.inside.test/",
    ],
)
async def test_an_address_inside_is_refused_at_registration(client: Client, url: str) -> None:
    status, _, problem = await client.ask("POST", "/mcp/servers", value={"name": "a", "url": url})
    assert (status, problem["field"], problem["title"]) == (422, "url", "Address refused")
    assert (await client.ask("GET", "/mcp/servers/a"))[0] == 404


async def test_a_loop_is_refused(client: Client, app: Application) -> None:
    gateway = app.gateway
    assert gateway is not None
    status, _, problem = await client.ask("GET", "/mcp/tools", headers={"via": f"1.1 nginx, 1.1 {gateway.identity}"})
    assert (status, problem["title"]) == (508, "Loop detected")


async def test_a_server_that_leads_back_here_is_left_alone(open_app: Open, database_url: str) -> None:
    back = "Server 'demo' leads back to this gateway (HTTP 508); remove it."

    class LeadsBack(MemoryUpstream):
        async def open(self, hello: Hello) -> UpstreamSession:
            raise UpstreamProtocolError("demo", back, upstream_status=508)

    async with open_app(connect=lambda spec: LeadsBack(spec.name, MemoryServer())) as (_, client):
        _, _, stored = await client.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
    assert (stored["state"], stored["reason"]) == ("unreachable", back)
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT next_refresh - now() > interval '50 minutes' FROM servers").fetchone()
    assert row == (True,)


async def test_a_worker_that_starts_asks_those_whose_state_may_be_of_other_settings(
    open_app: Open, servers: Servers
) -> None:
    servers["127.0.0.1"] = MemoryServer()
    async with open_app(allow_private_upstreams=True, retry_seconds=600) as (_, client):
        for name, host in (("private", "127.0.0.1"), ("gone", "gone.test")):
            await client.ask("POST", "/mcp/servers", value={"name": name, "url": f"http://{host}/mcp"})
    servers["127.0.0.1"].down = "refused now"
    servers["gone"] = MemoryServer()
    async with open_app(retry_seconds=600) as (_, client):
        async with asyncio.timeout(20):
            while True:
                _, _, shown = await client.ask("GET", "/mcp/servers", headers=JSON)
                if [each["state"] for each in shown["servers"]] == ["ready", "unreachable"]:
                    break
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("demo__ecoh", ["demo__echo"]),
        ("ecoh", ["demo__echo"]),
        ("other__echo", ["demo__echo"]),
        ("cho", ["demo__echo"]),
        ("something else", None),
    ],
)
async def test_an_unknown_tool_says_what_was_probably_meant(
    client: Client, registered: MemoryServer, name: str, meant: list[str] | None
) -> None:
    status, _, problem = await client.ask("POST", "/mcp/tools/call", value={"name": name})
    assert (status, problem.get("did_you_mean")) == (404, meant)
    assert ("Did you mean 'demo__echo'?" in problem["detail"]) is bool(meant)
    assert problem["detail"].endswith("GET /mcp/tools lists the tools you can call.")
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}}
    _, _, answer = await client.ask("POST", "/rpc", value=call)
    assert answer["error"]["data"].get("did_you_mean") == meant
    assert answer["error"]["message"].endswith("tools/list lists the tools you can call.")
    assert "GET" not in answer["error"]["message"]


async def test_a_search_for_oauths_documents_leaves_no_line(
    client: Client, stranger: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway")
    for path in ("/.well-known/oauth-protected-resource/mcp", "/mcp/.well-known/openid-configuration"):
        assert (await stranger.ask("GET", path))[0] in (401, 404)
        assert (await client.ask("GET", path))[0] == 404
    assert not [record for record in caplog.records if record.name == "gateway.refusals"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "echo", "arguments": None}, 200),
        ({"name": "echo", "_meta": 5}, 422),
        ({"name": "x" * 100_000}, 404),
    ],
)
async def test_odd_values_are_taken_or_refused(
    client: Client, registered: MemoryServer, body: dict[str, Any], status: int
) -> None:
    got, _, answer = await client.ask("POST", "/mcp/tools/call", value=body)
    assert got == status
    assert len(str(answer)) < 2000
    assert all("arguments" not in request.params for request in registered.requests)


@pytest.mark.parametrize("depth", [200, 300, 900])
async def test_deep_arguments_pass_or_are_refused(client: Client, registered: MemoryServer, depth: int) -> None:
    body = b'{"name": "echo", "arguments": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
    status, _, _ = await client.ask("POST", "/mcp/tools/call", body=body)
    assert status == (200 if depth == 200 else 400)


async def test_a_name_that_no_server_can_have_is_404(client: Client) -> None:
    for method in ("GET", "DELETE"):
        assert (await client.ask(method, "/mcp/servers/a%00b"))[0] == 404


async def test_a_body_that_is_too_slow_is_408(open_app: Open) -> None:
    async with open_app(body_seconds=0.05) as (app, _):
        answers: list[Any] = []

        async def receive() -> Any:
            await asyncio.sleep(0.5)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            answers.append(message)

        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {KEY}".encode())]
        scope = {"type": "http", "method": "POST", "path": "/mcp/tools/call", "headers": headers, "query_string": b""}
        await app(scope, receive, send)
        assert answers[0]["status"] == 408


async def test_a_client_that_does_not_read_is_let_go(
    app: Application, registered: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.edge.request._SEND_SECONDS", 0.05)
    requests = [{"type": "http.request", "body": b'{"name": "echo"}', "more_body": False}]

    async def receive() -> Any:
        return requests.pop() if requests else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        await asyncio.Event().wait()

    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {KEY}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/mcp/tools/call", "headers": headers, "query_string": b""}
    async with asyncio.timeout(10):
        await app(scope, receive, send)
    assert len(registered.requests) == 1


ROUTEIQ = {
    "server_id": "stub-mcp-1", "name": "test-stub", "url": "http://demo.test/mcp", "transport": "streamable_http",
    "tools": ["echo"], "resources": ["stub://resource/demo"], "metadata": {"team": "x"},
}  # fmt: skip


@pytest.mark.parametrize("mount", ["", "/below/here"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/mcp/servers"), ("PUT", "/mcp/servers/stub-mcp-1"), ("RPC", "/mcp/servers"), ("RPC", "/rpc")],
)
async def test_a_registration_as_other_gateways_clients_send_it_works(
    app: Application, servers: Servers, mount: str, method: str, path: str
) -> None:
    client = Client(app, KEY, root_path=mount)
    servers["demo"] = MemoryServer()
    body: dict[str, Any] = ROUTEIQ
    if method == "RPC":
        method, body = "POST", {"jsonrpc": "2.0", "id": 1, "method": "mcp.servers.register", "params": ROUTEIQ}
    status, _, stored = await client.ask(method, path, value=body)
    stored = stored.get("result", stored)
    assert (status, stored["name"], stored["title"], stored["state"]) == (200, "stub-mcp-1", "test-stub", "ready")
    assert (await client.ask("GET", "/mcp/servers/stub-mcp-1"))[0] == 200
    _, _, again = await client.ask("PATCH", "/mcp/servers/stub-mcp-1", value={"server_id": "stub-mcp-1", "name": "T"})
    assert again["title"] == "T"
    assert (await client.ask("POST", "/mcp/tools/call", value={"name": "echo"}))[0] == 200
    assert (await client.ask("DELETE", "/mcp/servers/stub-mcp-1"))[0] == 200


async def test_a_private_address_is_allowed_by_network_or_by_name_and_the_refusal_says_how(
    open_app: Open, servers: Servers
) -> None:
    servers |= {"a.inside": MemoryServer(), "10.0.0.7": MemoryServer()}
    async with open_app(allowed_upstreams=("*.inside.test", "10.0.0.0/29")) as (_, client):
        for name, url, expected in (
            ("byname", "http://a.inside.test/mcp", 200),
            ("bynet", "http://10.0.0.7/mcp", 200),
            ("outside", "http://10.0.0.8/mcp", 422),
            ("never", "http://169.254.169.254/mcp", 422),
        ):
            status, _, answer = await client.ask("POST", "/mcp/servers", value={"name": name, "url": url})
            assert status == expected, answer
            if name == "outside":
                assert "GATEWAY_ALLOWED_UPSTREAMS" in answer["detail"]
                assert "GATEWAY_ALLOW_PRIVATE_UPSTREAMS" in answer["detail"]


async def test_a_server_that_takes_its_time_is_starting(
    client: Client, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.methods.servers._REGISTRATION_SECONDS", 0.1)
    go = asyncio.Event()

    class Late(MemoryServer):
        async def answer(self, request: Request, emit: Emit) -> Any:
            await go.wait()
            return await super().answer(request, emit)

    servers["demo"] = Late()
    _, _, stored = await client.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
    assert (stored["state"], stored["reason"]) == ("starting", None)
    go.set()

    async with asyncio.timeout(10):
        while (shown := (await client.ask("GET", "/mcp/servers/demo"))[2])["state"] == "starting":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert shown["state"] == "ready"


async def test_a_call_that_finds_its_server_gone_changes_the_state(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer()
    async with open_app(refresh_seconds=3600) as (_, client):
        await client.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
        servers["demo"].down = "nobody there"
        assert (await client.ask("POST", "/mcp/tools/call", value={"name": "demo__echo"}))[0] == 502
        async with asyncio.timeout(10):
            while (shown := (await client.ask("GET", "/mcp/servers/demo"))[2])["state"] == "ready":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (shown["state"], shown["reason"]) == ("unreachable", "nobody there")


async def test_a_program_that_may_not_run_can_be_switched_off_and_labelled(open_app: Open) -> None:
    spec = {"name": "p", "transport_type": "stdio", "command": "true"}
    async with open_app(allow_stdio=True) as (_, client):
        assert (await client.ask("POST", "/mcp/servers", value=spec))[0] == 200
    async with open_app() as (_, client):
        for change, status in (
            ({"tags": ["old"]}, 200), ({"enabled": False}, 200), ({"enabled": True}, 403), ({"args": ["x"]}, 403),
        ):  # fmt: skip
            assert (await client.ask("PATCH", "/mcp/servers/p", value=change))[0] == status, change
