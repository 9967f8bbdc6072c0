import pytest

from gateway.edge.app import Application, create_app
from gateway.errors import SettingsError
from gateway.observability.logs import JsonFormatter, TextFormatter
from gateway.settings import Settings
from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import KEY, Open, Servers

pytestmark = pytest.mark.anyio

OPEN = [("GET", "/healthz"), ("GET", "/readyz"), ("OPTIONS", "/v1/mcp/registry.json"), ("OPTIONS", "/v0.1/servers")]
CLOSED = [
    ("GET", "/mcp/servers"), ("POST", "/mcp/servers"), ("GET", "/mcp/tools"), ("POST", "/mcp/tools/call"),
    ("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("POST", "/mcp/servers/x/mcp"), ("POST", "/rpc"),
    ("GET", "/v1/mcp/registry.json"), ("GET", "/v0.1/servers"), ("GET", "/metrics"), ("DELETE", "/mcp/servers/x"),
    ("GET", "/anything"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), OPEN)
async def test_few_addresses_are_open(stranger: Client, method: str, path: str) -> None:
    assert (await stranger.ask(method, path))[0] in (200, 204)


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_everything_else_wants_the_key(stranger: Client, method: str, path: str) -> None:
    status, headers, answer = await stranger.ask(method, path)
    assert (status, headers["www-authenticate"].split()[0]) == (401, "Bearer")
    assert "Authorization" in str(answer)


async def test_oauth_discovery_is_404_so_that_no_client_starts_it(stranger: Client) -> None:
    assert (await stranger.ask("GET", "/.well-known/oauth-protected-resource"))[0] == 404


async def test_a_key_in_the_query_is_refused(client: Client) -> None:
    status, _, answer = await client.ask("GET", f"/mcp/tools?api_key={KEY}")
    assert status == 400
    assert KEY not in str(answer)


async def test_the_registry_document_is_for_every_page_and_the_rest_is_not(client: Client) -> None:
    evil = {"origin": "https://evil.example"}
    status, headers, _ = await client.ask("GET", "/v1/mcp/registry.json", headers=evil)
    assert (status, headers["access-control-allow-origin"]) == (200, "*")
    assert (await client.ask("GET", "/mcp/tools", headers=evil))[0] == 403


@pytest.mark.parametrize(
    "path", ["/mcp", "/mcp/tools", "/mcp/servers/x/mcp", "/v1/mcp/registry.json", "/v0.1/servers", "/rpc", "/sse"]
)
async def test_switched_off_it_names_the_switch(open_app: Open, path: str) -> None:
    async with open_app(enabled=False) as (_, client):
        status, _, problem = await client.ask("GET", path)
        assert status == 404
        assert "MCP_GATEWAY_ENABLED" in problem["detail"]
        assert (await client.ask("GET", "/healthz"))[0] == 200


async def test_the_callers_request_id_is_repeated_where_it_is_harmless(client: Client) -> None:
    _, headers, _ = await client.ask("GET", "/healthz", headers={"x-request-id": "abc-1"})
    assert headers["x-request-id"] == "abc-1"
    _, headers, _ = await client.ask("GET", "/healthz", headers={"x-request-id": "a b"})
    assert headers["x-request-id"] not in ("", "a b")


@pytest.mark.parametrize("path", ["/", "/mcp/nothing", "/mcp/servers/a%2Fb", "/mcp/servers/a/b/c"])
async def test_an_unknown_address_is_404(client: Client, path: str) -> None:
    assert (await client.ask("GET", path))[0] == 404


async def test_readyz_names_replica_worker_revision_and_lag(client: Client) -> None:
    _, _, state = await client.ask("GET", "/readyz")
    assert (state["replica"], state["worker"], state["revision"]) == ("test", "1", 0)
    assert state["lag_seconds"] >= 0


async def test_metrics_are_true(client: Client, registered: MemoryServer) -> None:
    await client.ask("POST", "/rpc", value={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    await client.ask("POST", "/mcp/tools/call", value={"name": "nope"})
    await client.ask("POST", "/mcp/tools/call", value={"name": "echo"})
    _, _, body = await client.ask("GET", "/metrics")
    text = body.decode()
    for line in (
        'gateway_calls_total{method="ping",outcome="ok",replica="test"} 1.0',
        'gateway_calls_total{method="tools/call",outcome="-32602",replica="test"} 1.0',
        'gateway_calls_total{method="tools/call",outcome="ok",replica="test"} 1.0',
        'gateway_calls_total{method="mcp.servers.register",outcome="ok",replica="test"} 1.0',
        'gateway_upstream_seconds_count{method="tools/call",replica="test"} 1.0',
        'gateway_in_flight{replica="test"} 0.0',
        'gateway_servers{replica="test"} 1.0',
        'gateway_registry_revision{replica="test"} 2.0',
    ):
        assert line in text


async def test_a_call_is_one_line_without_arguments_headers_or_keys(
    client: Client, registered: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway.calls")
    headers = {"x-request-id": "abc-1", "x-other": "h3ader"}
    body = {"name": "demo__echo", "arguments": {"secret": "s3cret"}}
    await client.ask("POST", "/mcp/tools/call", value=body, headers=headers)
    [record] = [record for record in caplog.records if record.name == "gateway.calls"]
    fields = record.__dict__["fields"]
    assert fields["method"] == "tools/call"
    assert (fields["principal"], fields["server"], fields["name"]) == ("master", "demo", "demo__echo")
    assert (fields["outcome"], fields["request_id"]) == ("ok", "abc-1")
    assert fields["bytes"] > 0
    assert fields["ms"] >= 0
    assert fields["upstream_ms"] >= 0
    for form in (JsonFormatter({"worker": "1"}), TextFormatter({"worker": "1"})):
        line = form.format(record)
        assert "\n" not in line
        assert not any(secret in line for secret in ("s3cret", "h3ader", KEY))


async def test_a_hostile_name_stays_on_its_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway.calls")
    await client.ask("POST", "/mcp/tools/call", value={"name": "x\n2026 INFO forged\x1b[31m" + "y" * 500})
    [record] = [record for record in caplog.records if record.name == "gateway.calls"]
    for form in (JsonFormatter({}), TextFormatter({})):
        line = form.format(record)
        assert line.isprintable()
        assert len(line) < 600


@pytest.mark.parametrize("missing", ["master_key", "database_url", "redis_url"])
async def test_an_app_that_lacks_something_says_which_setting(missing: str) -> None:
    values = {"master_key": KEY, "database_url": "postgresql://x", "redis_url": "redis://x"}
    names = {"master_key": "GATEWAY_MASTER_KEY", "database_url": "DATABASE_URL", "redis_url": "REDIS_URL"}
    with pytest.raises(SettingsError, match=names[missing]):
        create_app(Settings(**{name: value for name, value in values.items() if name != missing}))  # type: ignore[arg-type]  # all are strings


async def test_it_opens_on_the_first_request_where_the_host_runs_no_lifespan(database_url: str, redis_url: str) -> None:
    app = create_app(Settings(master_key=KEY, database_url=database_url, redis_url=redis_url))
    assert (await Client(app, KEY).ask("GET", "/mcp/servers", headers={"accept": "application/json"}))[0] == 200
    await app.close()


async def test_it_works_below_a_mount_point(open_app: Open) -> None:
    async with open_app() as (app, _):
        mounted = Client(app, KEY, root_path="/tools/gateway")
        _, _, document = await mounted.ask("GET", "/v1/mcp/registry.json")
        assert document["servers"][0]["server"]["remotes"][0]["url"] == "http://localhost/tools/gateway/mcp"


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("POST", "/mcp/tools/call", b"{", {}),
        ("POST", "/rpc", b"{", {}),
        ("POST", "/mcp", b"{}", {"content-type": "application/json"}),
        ("POST", "/mcp/servers", b'{"name": "a b", "url": "http://x/"}', {}),
        ("POST", "/mcp/tools/call", b'{"name": "nope"}', {}),
        ("POST", "/rpc", b'{"jsonrpc": "2.0", "id": 1, "method": "nope"}', {}),
        ("GET", "/mcp/servers/nobody", None, {}),
        ("GET", "/mcp/tools", None, {"authorization": "Bearer wrong"}),
        ("GET", "/mcp/tools", None, {"host": "evil.example"}),
        ("GET", "/nowhere", None, {}),
    ],
)
async def test_whatever_is_refused_has_exactly_one_line(
    client: Client,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
) -> None:
    caplog.set_level("INFO")
    await client.ask(method, path, body=body, headers=headers)
    lines = [record for record in caplog.records if record.name in ("gateway.calls", "gateway.refusals")]
    assert len(lines) == 1
    assert KEY not in JsonFormatter({}).format(lines[0])


async def test_figures_count_calls_by_server_and_where_wanted_by_tool(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer()
    for by_tool in (False, True):
        async with open_app(metrics_tools=by_tool) as (_, client):
            await client.ask("PUT", "/mcp/servers/demo", value={"url": "http://demo.test/mcp"})
            await client.ask("POST", "/mcp/tools/call", value={"name": "demo__echo"})
            servers["demo"].down = "gone"
            await client.ask("POST", "/mcp/tools/call", value={"name": "demo__echo"})
            servers["demo"].down = None
            text = (await client.ask("GET", "/metrics"))[2].decode()
        assert 'gateway_server_calls_total{outcome="ok",replica="test",server="demo"} 1.0' in text
        assert 'gateway_server_calls_total{outcome="-32050",replica="test",server="demo"} 1.0' in text
        tool = 'gateway_tool_calls_total{outcome="ok",replica="test",server="demo",tool="echo"} 1.0'
        assert (tool in text) is by_tool


@pytest.mark.parametrize(
    ("how", "key", "status"),
    [
        ("key", None, 401), ("key", "wrong-wrong", 401), ("key", KEY, 200), ("key", "figures-only", 200),
        ("open", None, 200), ("off", KEY, 404),
    ],
)  # fmt: skip
async def test_the_figures_are_for_whom_the_setting_says(
    open_app: Open, how: str, key: str | None, status: int
) -> None:
    async with open_app(metrics=how, metrics_key="figures-only") as (app, _):
        client = Client(app, key)
        assert (await client.ask("GET", "/metrics", headers={"host": "10.1.2.3:4000"}))[0] == status
        if key == "figures-only":
            assert (await client.ask("GET", "/mcp/tools"))[0] == 401


async def test_a_browser_gets_a_page_that_says_how_to_connect(stranger: Client, registered: MemoryServer) -> None:
    async with stranger.open("GET", "/", headers={"accept": "text/html,*/*;q=0.8"}) as answer:
        text = (await answer.body()).decode()
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "http://localhost/mcp" in text
    assert "demo" not in text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert (await stranger.ask("GET", "/", headers={"accept": "application/json"}))[0] == 401
    assert (await stranger.ask("GET", "/", headers={"accept": "text/html", "host": "evil.test"}))[0] == 403


@pytest.mark.parametrize(("path", "status"), [("/favicon.ico", 204), ("/robots.txt", 200)])
async def test_what_browsers_ask_for_by_themselves_is_quiet(
    stranger: Client, path: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    caplog.clear()
    assert (await stranger.ask("GET", path))[0] == status
    assert [record for record in caplog.records if record.name.startswith("gateway")] == []


@pytest.mark.parametrize(("method", "path"), [("POST", "/register"), ("GET", "/authorize"), ("POST", "/token")])
async def test_a_sign_in_is_told_that_there_is_none(stranger: Client, method: str, path: str) -> None:
    status, _, answer = await stranger.ask(method, path)
    assert (status, answer["error"]) == (403, "access_denied")
    assert "Authorization: Bearer <key>" in answer["error_description"]
    assert "nauthorized" not in str(answer), "clients take that word for a challenge"


async def test_a_wrong_key_is_told_apart_from_none_in_the_challenge(app: Application, stranger: Client) -> None:
    _, headers, _ = await stranger.ask("GET", "/mcp/tools")
    assert headers["www-authenticate"] == 'Bearer realm="mcp-gateway"'
    _, headers, _ = await Client(app, "a-wrong-key").ask("GET", "/mcp/tools")
    assert 'error="invalid_token"' in headers["www-authenticate"]
    assert "a-wrong-key" not in headers["www-authenticate"]
