import asyncio
from typing import Any

import pytest

from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import Servers
from tests.talk import ask, handshake

pytestmark = pytest.mark.anyio

NUMBERS = {
    "type": "object",
    "properties": {"values": {"type": "array", "items": {"$ref": "#/$defs/number"}}},
    "required": ["values"],
    "$defs": {"number": {"type": "number"}},
}


async def register(client: Client, servers: Servers, schema: dict[str, Any], **fields: Any) -> MemoryServer:
    servers["a"] = MemoryServer(schemas={"echo": schema})
    await client.ask("POST", "/mcp/servers", value={"name": "a", "url": "http://a.test/mcp", **fields})
    servers["a"].requests.clear()
    return servers["a"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({}, "values"), ({"values": ["x"]}, "values.0"), ({"values": 3}, "values"), (None, "values")],
)
async def test_wrong_arguments_are_a_tool_error_that_names_the_field(
    client: Client, servers: Servers, arguments: Any, named: str
) -> None:
    server = await register(client, servers, NUMBERS, validate_arguments=True)
    body = {"name": "a__echo"} | ({} if arguments is None else {"arguments": arguments})
    status, _, answer = await client.ask("POST", "/mcp/tools/call", value=body)
    assert (status, answer["result"]["isError"]) == (200, True)
    assert named in answer["result"]["content"][0]["text"]
    session = await handshake(client, "/mcp/servers/a/mcp")
    params = {"name": "echo"} | ({} if arguments is None else {"arguments": arguments})
    assert (await ask(client, "/mcp/servers/a/mcp", session, "tools/call", **params))["isError"] is True
    assert server.requests == []


async def test_right_arguments_pass(client: Client, servers: Servers) -> None:
    await register(client, servers, NUMBERS, validate_arguments=True)
    body = {"name": "a__echo", "arguments": {"values": [1, 2.5], "more": True}}
    assert "isError" not in (await client.ask("POST", "/mcp/tools/call", value=body))[2]["result"]


async def test_without_the_option_the_server_judges(client: Client, servers: Servers) -> None:
    server = await register(client, servers, NUMBERS)
    await client.ask("POST", "/mcp/tools/call", value={"name": "a__echo", "arguments": {"values": "x"}})
    assert server.requests[-1].params["arguments"] == {"values": "x"}


@pytest.mark.parametrize(
    "schema", [{"$ref": "http://127.0.0.1:1/x"}, {"$ref": "file:///etc/passwd"}, {"type": "bogus"}]
)
async def test_a_schema_that_can_not_be_compiled_checks_nothing_and_fetches_nothing(
    client: Client, servers: Servers, schema: dict[str, Any]
) -> None:
    await register(client, servers, schema, validate_arguments=True)
    assert (await client.ask("POST", "/mcp/tools/call", value={"name": "a__echo"}))[0] == 200


async def test_a_changed_schema_is_compiled_anew(client: Client, servers: Servers) -> None:
    server = await register(client, servers, {"type": "object", "required": ["x"]}, validate_arguments=True)
    body = {"name": "a__echo", "arguments": {"y": 1}}
    assert (await client.ask("POST", "/mcp/tools/call", value=body))[2]["result"]["isError"] is True
    server.schemas["echo"] = {"type": "object", "required": ["y"]}
    await client.ask("POST", "/mcp/servers/a/refresh")
    assert "isError" not in (await client.ask("POST", "/mcp/tools/call", value=body))[2]["result"]


async def test_a_schema_that_would_take_too_long_is_not_checked_and_named_in_the_log(
    client: Client, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    levels = {f"a{level}": {"allOf": [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(40)}
    schema = {"type": "object", "$ref": "#/$defs/a0", "$defs": {**levels, "a40": {"type": "object"}}}
    await register(client, servers, schema, validate_arguments=True)
    async with asyncio.timeout(10):  # checked, it would take hours
        status, _, _ = await client.ask("POST", "/mcp/tools/call", value={"name": "echo", "arguments": {}})
    assert status == 200
    assert "arguments of tool echo" in caplog.text
    assert "unfolds to more than" in caplog.text


async def test_arguments_that_are_too_large_for_their_schema_are_refused(client: Client, servers: Servers) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "array", "items": {"anyOf": [{"type": "null"}] * 500}}}}
    await register(client, servers, schema, validate_arguments=True)
    for count, fits in ((10, True), (100_000, False)):
        value = {"name": "echo", "arguments": {"x": [None] * count}}
        _, _, answer = await client.ask("POST", "/mcp/tools/call", value=value)
        assert ("too large to be checked" in str(answer)) is not fits
