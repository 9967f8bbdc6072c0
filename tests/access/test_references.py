"""Secrets by reference: who may write them, what is read, what a server gets; nothing of it is stored or shown."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.access.references import References
from gateway.errors import InvalidParams, UpstreamUnreachable
from gateway.model.references import check_references
from gateway.model.server import ServerSpec
from gateway.upstream import referenced
from tests.asgi import Client
from tests.fix_gateway import Open
from tests.wire import Wire

pytestmark = pytest.mark.anyio

SECRET = "the-value-nobody-sees"


def spec(value: str) -> ServerSpec:
    return ServerSpec("demo", "http://demo.test/", headers={"X-Key": value})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("${env:PATH}", "GATEWAY_VALUE_"),
        ("${env:GATEWAY_MASTER_KEY}", "GATEWAY_VALUE_"),
        ("${env:GATEWAY_VALUE_}", "GATEWAY_VALUE_"),
        ("${file:/etc/passwd}", "/run/secrets"),
        ("${file:/run/secrets/../../etc/passwd}", "/run/secrets"),
        ("${file:/run/secrets}", "/run/secrets"),
        ("${file:secret}", "/run/secrets"),
        ("${vault:x}", "A reference is"),
        ("${}", "A reference is"),
    ],
)
def test_a_reference_leads_only_where_it_may(value: str, said: str) -> None:
    with pytest.raises(InvalidParams) as refusal:
        check_references(spec(f"Bearer {value}"), "/run/secrets")
    assert said in refusal.value.detail
    assert refusal.value.facts["field"] == "headers.X-Key"


def test_other_texts_are_no_references() -> None:
    for value in ("$x", "{x}", "$ {env:X}", "${env:GATEWAY_VALUE_X}", "a ${file:/run/secrets/a/b} c"):
        check_references(spec(value), "/run/secrets")


def read(value: str, folder: Path, **environment: str) -> str:
    return References(environment, folder).resolved(spec(value)).headers["X-Key"]


def test_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"{SECRET}\n")
    assert read("Bearer ${env:GATEWAY_VALUE_A}", tmp_path, GATEWAY_VALUE_A="x") == "Bearer x"
    assert read(f"${{file:{tmp_path}/a}}-${{env:GATEWAY_VALUE_A}}", tmp_path, GATEWAY_VALUE_A="x") == f"{SECRET}-x"
    assert (
        read("${env:GATEWAY_VALUE_A}", tmp_path, GATEWAY_VALUE_A="${env:GATEWAY_VALUE_B}") == "${env:GATEWAY_VALUE_B}"
    )


@pytest.mark.parametrize(
    "how", ["missing", "empty", "lines", "large", "binary", "out", "folder", "pipe", "unset", "control"]
)
def test_what_can_not_be_read_is_said_without_what_it_holds(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (tmp_path / "other").write_text(SECRET)
    file, name = folder / "a", "a"
    match how:
        case "empty":
            file.write_text("\n")
        case "lines":
            file.write_text(f"{SECRET}\nX-Other: y")
        case "large":
            file.write_text("x" * 70_000)
        case "binary":
            file.write_bytes(b"\xff\xfe")
        case "out":
            file.symlink_to(tmp_path / "other")
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
    value = f"${{file:{folder}/{name}}}" if how not in ("unset", "control") else "${env:GATEWAY_VALUE_A}"
    environment = {"GATEWAY_VALUE_A": f"{SECRET}\r\nX: y"} if how == "control" else {}
    with pytest.raises(UpstreamUnreachable) as refusal:
        read(value, folder, **environment)
    assert SECRET not in str(refusal.value.detail)
    assert "which it refers to" in refusal.value.detail


# --- at a gateway -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A server that shows which headers it got."""
    wire = Wire()
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    async with server:
        yield wire


def sent(wire: Wire) -> str | None:
    """The header of the newest handshake."""
    return [headers.get("x-key") for _, headers, message in wire.seen if message.get("method") == "initialize"][-1]


async def test_a_server_gets_the_value_and_everybody_else_the_reference(
    open_app: Open, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referenced, "_LOOK_SECONDS", 0)
    file = tmp_path / "key"
    reference = f"Bearer ${{file:{file}}}"
    real = {"connect": None, "resolve": None, "allow_private_upstreams": True, "secrets_dir": tmp_path}
    async with open_app(**real) as (app, client):
        value = {"name": "demo", "url": wire.url, "headers": {"X-Key": reference}}
        status, _, stored = await client.ask("POST", "/mcp/servers", value=value)
        assert (status, stored["state"], wire.seen) == (200, "unreachable", [])
        assert f"the file {file}" in stored["reason"]
        file.write_text(SECRET)
        await client.ask("POST", "/mcp/servers/demo/refresh")
        assert sent(wire) == f"Bearer {SECRET}"
        file.write_text("another-value")
        await client.ask("POST", "/mcp/servers/demo/refresh")
        assert sent(wire) == "Bearer another-value"
        _, _, shown = await client.ask("GET", "/mcp/servers/demo")
        assert shown["headers"] == {"X-Key": reference}
        assert SECRET not in str(shown)
        assert app.gateway is not None
        async with app.gateway.postgres.transaction() as connection:
            rows = await (await connection.execute("SELECT s::text AS row FROM servers s")).fetchall()
        assert SECRET.encode().hex() not in str(rows)
        spec = app.gateway.sync.catalogue.servers["demo"].spec
        assert spec.headers == {"X-Key": reference}  # and not the value, sealed


async def made(client: Client, role: str) -> Client:
    _, _, key = await client.ask("POST", "/keys", value={"name": role, "role": role})
    return Client(client.app, key["key"])


async def test_references_are_an_administrators_to_write(client: Client, servers: Any) -> None:
    operator = await made(client, "operator")
    value = {"name": "demo", "url": "http://demo.test/", "headers": {"X-Key": "${env:GATEWAY_VALUE_A}"}}
    status, _, problem = await operator.ask("POST", "/mcp/servers", value=value)
    assert (status, problem["role"]) == (403, "admin")
    assert (await client.ask("POST", "/mcp/servers", value=value))[0] == 200
    status, _, stored = await operator.ask("PATCH", "/mcp/servers/demo", value={"title": "Demo"})
    assert (status, stored["headers"]) == (200, value["headers"])
    elsewhere = {"url": "http://demo.test/other", "headers": value["headers"]}
    assert (await operator.ask("PATCH", "/mcp/servers/demo", value=elsewhere))[0] == 403
    assert (await operator.ask("PATCH", "/mcp/servers/demo", value={"enabled": False}))[0] == 200
    assert (await operator.ask("PATCH", "/mcp/servers/demo", value={"enabled": True}))[0] == 403
    status, _, stored = await operator.ask("PATCH", "/mcp/servers/demo", value={"url": "http://thief.test/"})
    assert (status, stored["headers"]) == (200, {})
    again = {"url": "http://thief.test/", "headers": value["headers"]}
    assert (await operator.ask("PATCH", "/mcp/servers/demo", value=again))[0] == 403


async def test_programs_are_an_administrators_to_register(open_app: Open, servers: Any) -> None:
    async with open_app(allow_stdio=True) as (_, client):
        operator = await made(client, "operator")
        value = {"name": "program", "transport_type": "stdio", "command": "true"}
        status, _, problem = await operator.ask("PUT", "/mcp/servers/program", value=value)
        assert (status, problem["role"]) == (403, "admin")
        assert (await client.ask("PUT", "/mcp/servers/program", value=value))[0] == 200
        assert (await operator.ask("PATCH", "/mcp/servers/program", value={"enabled": False}))[0] == 200
        assert (await operator.ask("PATCH", "/mcp/servers/program", value={"args": ["x"]}))[0] == 403
        assert (await operator.ask("PATCH", "/mcp/servers/program", value={"enabled": True}))[0] == 403


async def test_looking_again_costs_a_call_nothing(tmp_path: Path) -> None:
    """Between two looks the way stays the same, without a file being touched."""
    looks: list[float] = []

    def resolve(asked: ServerSpec) -> ServerSpec:
        looks.append(time.monotonic())
        return asked

    upstream = referenced.ReferencedUpstream(spec("x"), resolve, lambda _: object())  # type: ignore[arg-type,return-value]
    ways = [await upstream._way() for _ in range(100)]
    assert len(set(map(id, ways))) == len(looks) == 1
