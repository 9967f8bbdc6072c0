"""APIs that an OpenAPI document describes, registered and called through a real connection."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api import PETS, Answered, Api, serving
from tests.asgi import Client
from tests.fix_gateway import Open
from tests.talk import ask, handshake, inside
from tests.waiting import until

pytestmark = pytest.mark.anyio
JSON = {"accept": "application/json"}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as api:
        yield api


@pytest.fixture
async def gateway(open_app: Open) -> AsyncIterator[Client]:
    async with open_app(connect=None, resolve=None, allow_private_upstreams=True) as (_, client):
        yield client


async def register(client: Client, api: Api, status: int = 200, **fields: Any) -> Any:
    value = {"name": "pets", "transport_type": "openapi", "spec": PETS, "base_url": f"{api.url}/v1", **fields}
    answered, _, document = await client.ask("POST", "/mcp/servers", value=value)
    assert answered == status, document
    return document


async def use(client: Client, tool: str, **arguments: Any) -> Any:
    value = {"name": f"pets__{tool}", "arguments": arguments}
    status, _, document = await client.ask("POST", "/mcp/tools/call", value=value)
    assert status == 200, document
    return document["result"]


async def test_each_operation_is_a_tool_or_has_a_reason(gateway: Client, api: Api) -> None:
    stored = await register(gateway, api)
    assert stored["state"] == "ready"
    assert stored["url"] == f"{api.url}/v1"
    assert stored["document"] == {
        "title": "Pets", "version": "1.2.0", "openapi": "3.0.3", "excluded": 0, "tools": 6, "left_out": 1
    }  # fmt: skip
    _, _, listed = await gateway.ask("GET", "/mcp/tools", headers=JSON)
    tools = {each["name"]: each for each in listed["tools"]}
    assert set(tools) == {
        "pets__listPets", "pets__createPet", "pets__getPet", "pets__renamePet", "pets__delete_pets_petId",
        "pets__getPhoto",
    }  # fmt: skip
    assert tools["pets__listPets"]["annotations"] == {"readOnlyHint": True, "openWorldHint": True}
    assert tools["pets__createPet"]["inputSchema"]["required"] == ["name"]
    assert "id" not in tools["pets__createPet"]["inputSchema"]["properties"]
    assert "GET /pets/{petId}" in tools["pets__getPet"]["description"]
    assert any("POST /pets/{petId}/photo" in each and "image/png" in each for each in stored["problems"])


async def test_a_call_is_the_request_that_the_document_describes(gateway: Client, api: Api) -> None:
    await register(gateway, api, headers={"X-Key": "secret"})
    api.answers["/v1/pets"] = Answered(body=b'[{"id": 1, "name": "Ada"}]')
    found = await use(gateway, "listPets", tags=["a b", "c"], limit=2, filter={"kind": "cat"})
    assert api.last.target == "/v1/pets?tags=a%20b&tags=c&limit=2&filter[kind]=cat"
    assert api.last.headers["x-key"] == "secret"
    assert api.last.headers["accept"] == "application/json"
    assert found["structuredContent"] == {"result": [{"id": 1, "name": "Ada"}]}
    assert json.loads(found["content"][0]["text"]) == [{"id": 1, "name": "Ada"}]

    api.answers["/v1/pets"] = Answered(201, b'{"id": 2, "name": "Bo", "born": null}')
    found = await use(gateway, "createPet", name="Bo", **{"X-Trace": "t1"})
    assert (api.last.method, api.last.json) == ("POST", {"name": "Bo"})
    assert api.last.headers["x-trace"] == "t1"
    assert api.last.headers["content-type"] == "application/json"
    assert found["structuredContent"]["id"] == 2
    assert not found.get("isError")

    api.answers["/v1/pets/a%2Fb"] = Answered(204, b"")
    found = await use(gateway, "renamePet", petId="a/b", name="C & d")
    assert (api.last.target, api.last.body) == ("/v1/pets/a%2Fb", b"name=C%20%26%20d")
    assert api.last.headers["content-type"] == "application/x-www-form-urlencoded"
    assert found == {"content": [{"type": "text", "text": "HTTP 204, without content."}]}

    api.answers["/v1/pets/1/photo"] = Answered(body=b"\x89PNG", media="image/png")
    assert (await use(gateway, "getPhoto", petId="1"))["content"] == [
        {"type": "image", "data": "iVBORw==", "mimeType": "image/png"}
    ]


async def test_errors_of_the_api_are_the_tools_errors(gateway: Client, api: Api) -> None:
    await register(gateway, api)
    api.answers["/v1/pets/9"] = Answered(404, b'{"error": "no such pet"}')
    assert await use(gateway, "getPet", petId="9") == {
        "content": [{"type": "text", "text": 'HTTP 404: {"error": "no such pet"}'}], "isError": True
    }  # fmt: skip
    api.answers["/v1/pets/8"] = Answered(302, b"", headers={"location": "https://elsewhere.test/x?token=abc"})
    (block,) = (await use(gateway, "getPet", petId="8"))["content"]
    assert "redirects are not followed" in block["text"]
    assert "abc" not in block["text"]
    api.answers["/v1/pets"] = Answered(201, b'{"id": "two", "name": 5}')
    found = await use(gateway, "createPet", name="Bo")
    assert found["isError"]
    assert "structuredContent" not in found
    assert "carried out (HTTP 201)" in found["content"][0]["text"]
    assert '"two"' in found["content"][0]["text"]


async def test_arguments_of_which_no_request_can_be_made_send_none(gateway: Client, api: Api) -> None:
    await register(gateway, api)
    for arguments, said in (
        ({}, "'petId' is required"),
        ({"petId": ".."}, "stands in the address"),
        ({"petId": ""}, "stands in the address"),
        ({"petId": "1", "other": 1}, "no argument 'other'"),
    ):
        found = await use(gateway, "getPet", **arguments)
        assert found["isError"]
        assert said in found["content"][0]["text"]
    found = await use(gateway, "listPets", **{"X-Trace": "a\r\nx-evil: 1"})
    assert found["isError"]
    assert "is a header" in found["content"][0]["text"]
    assert api.asked == []


async def test_clients_see_it_as_any_other_server(gateway: Client, api: Api) -> None:
    await register(gateway, api, include=["listPets"])
    for path in ("/mcp", "/mcp/servers/pets/mcp"):
        session = await handshake(gateway, path)
        tools = (await ask(gateway, path, session, "tools/list"))["tools"]
        (name,) = (each["name"] for each in tools)
        assert name.endswith("listPets")
        api.answers["/v1/pets"] = Answered(body=b"[]")
        answer = await ask(gateway, path, session, "tools/call", name=name, arguments={})
        assert answer["structuredContent"] == {"result": []}


async def test_include_and_exclude_choose(gateway: Client, api: Api) -> None:
    await register(gateway, api, include=["tag:reading", "POST /pets"], exclude=["getP*"])
    assert await names(gateway) == {"listPets", "createPet"}
    status, _, stored = await gateway.ask("PATCH", "/mcp/servers/pets", value={"exclude": ["nothing"]})
    assert status == 200
    assert stored["document"]["excluded"] == 4
    assert any("'nothing' fits no operation" in each for each in stored["problems"])
    assert await names(gateway) == {"listPets", "createPet", "getPet"}


async def names(client: Client) -> set[str]:
    _, _, listed = await client.ask("GET", "/mcp/tools", headers=JSON)
    return {each["name"].removeprefix("pets__") for each in listed["tools"]}


async def test_what_is_shown_can_be_put_back_and_holds_no_document(gateway: Client, api: Api) -> None:
    stored = await register(gateway, api)
    assert set(stored["spec"]) == {"sha256", "bytes"}
    again = await register(gateway, api)
    assert again["updated_at"] == stored["updated_at"], "the very same registration changes nothing"
    value = {**stored, "title": "The pets"}
    status, _, put = await gateway.ask("PUT", "/mcp/servers/pets", value=value)
    assert (status, put["title"], put["document"]["tools"]) == (200, "The pets", 6)
    status, _, wrong = await gateway.ask(
        "PUT", "/mcp/servers/pets", value={**value, "spec": {"sha256": "0", "bytes": 1}}
    )
    assert status == 422
    assert wrong["field"] == "spec"


async def test_a_new_document_gives_other_tools(gateway: Client, api: Api) -> None:
    await register(gateway, api)
    fewer = {**PETS, "paths": {"/pets": PETS["paths"]["/pets"]}}
    status, _, stored = await gateway.ask("PATCH", "/mcp/servers/pets", value={"spec": json.dumps(fewer)})
    assert status == 200
    assert stored["document"]["tools"] == 2
    assert await names(gateway) == {"listPets", "createPet"}


async def test_a_document_at_an_address_is_read_again(gateway: Client, api: Api) -> None:
    document = {**PETS, "servers": [{"url": "/v2"}]}
    api.answers["/openapi.json"] = Answered(body=json.dumps(document).encode())
    value = {"name": "pets", "spec_url": f"{api.url}/openapi.json"}
    status, _, stored = await gateway.ask("POST", "/mcp/servers", value=value)
    assert (status, stored["transport_type"], stored["url"]) == (200, "openapi", f"{api.url}/v2")
    assert stored["document"]["tools"] == 6
    api.answers["/openapi.json"] = Answered(body=json.dumps({**document, "paths": {}}).encode())
    status, _, stored = await gateway.ask("POST", "/mcp/servers/pets/refresh", value={})
    assert "no operations" in stored["reason"]
    assert len(await names(gateway)) == 6, "its last tools stay"
    api.answers["/openapi.json"] = Answered(302, b"", headers={"location": "https://x.test/"})
    _, _, stored = await gateway.ask("POST", "/mcp/servers/pets/refresh", value={})
    assert "redirects are not followed" in stored["reason"]


async def test_a_document_that_is_not_there_now_is_taken_with_a_base_url(gateway: Client, api: Api) -> None:
    api.answers["/openapi.json"] = Answered(503, b"")
    value = {"name": "pets", "spec_url": f"{api.url}/openapi.json"}
    status, _, refused = await gateway.ask("POST", "/mcp/servers", value=value)
    assert status == 502
    assert "HTTP 503" in refused["detail"]
    status, _, stored = await gateway.ask("POST", "/mcp/servers", value={**value, "base_url": api.url})
    assert (status, stored["state"]) == (200, "unreachable")
    assert "HTTP 503" in stored["reason"]
    api.answers["/openapi.json"] = Answered(body=json.dumps(PETS).encode())
    _, _, stored = await gateway.ask("POST", "/mcp/servers/pets/refresh", value={})
    assert stored["state"] == "ready"


async def test_headers_go_to_the_api_only(gateway: Client, api: Api) -> None:
    async with serving() as elsewhere:
        elsewhere.answers["/o.json"] = api.answers["/o.json"] = Answered(body=json.dumps(PETS).encode())
        secret = {"headers": {"X-Key": "secret"}}
        for number, (at, other) in enumerate(((api, api), (elsewhere, api))):
            value = {"name": f"s{number}", "spec_url": f"{at.url}/o.json", "base_url": other.url, **secret}
            assert (await gateway.ask("POST", "/mcp/servers", value=value))[0] == 200
        assert api.last.headers["x-key"] == "secret"
        assert "x-key" not in elsewhere.last.headers


async def test_a_fixed_header_or_parameter_is_no_argument(gateway: Client, api: Api) -> None:
    await register(gateway, api, headers={"x-trace": "fixed"}, base_url=f"{api.url}/v1?limit=5&api_key=k")
    _, _, listed = await gateway.ask("GET", "/mcp/tools", headers=JSON)
    (tool,) = (each for each in listed["tools"] if each["name"] == "pets__listPets")
    assert set(tool["inputSchema"]["properties"]) == {"tags", "filter"}
    await use(gateway, "listPets", tags=["a"])
    assert api.last.target == "/v1/pets?limit=5&api_key=k&tags=a"
    assert api.last.headers["x-trace"] == "fixed"


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"spec": "nonsense"}, "spec", "no object"),
        ({"spec": "{"}, "spec", "JSON"),
        ({"spec": "a: &a [*a]"}, "spec", "nested too deeply"),
        ({"spec": {"openapi": "9.0"}}, "spec", "'9.0'"),
        ({"spec": {"swagger": "2.0", "paths": {}}}, "spec", "no operations"),
        ({"spec": {"info": {}}}, "spec", "no OpenAPI document"),
        ({"spec": PETS, "spec_url": "http://127.0.0.1/x"}, "spec", "either"),
        ({"spec": None}, "spec", "either"),
        ({"spec": 5}, "spec", "a text"),
        ({"spec": "x" * (6 << 20)}, "spec", "at most 5"),
        ({"include": "all"}, "include", "list"),
        ({"include": ["*" * 50]}, "include", "10"),
        ({"command": "ls"}, "command", "has no"),
        ({"spec": {**PETS, "paths": {f"/p{n}": {"get": {}} for n in range(1_001)}}}, "spec", "1001 operations"),
        ({"spec": {**PETS, "paths": {"/a": {"$ref": "other.json#/a"}}}}, "spec", "another document"),
        ({"spec": {**PETS, "paths": {"/a": {"$ref": "#/paths/~1a"}}}}, "spec", "circle"),
    ],
)
async def test_what_is_wrong_is_said_at_once(
    gateway: Client, api: Api, fields: dict[str, Any], field: str, said: str
) -> None:
    refused = await register(gateway, api, status=422, **fields)
    assert refused["field"] == field
    assert said in refused["detail"]
    _, _, listed = await gateway.ask("GET", "/mcp/servers", headers=JSON)
    assert listed["servers"] == []


async def test_a_document_without_an_address_asks_for_one(gateway: Client, api: Api) -> None:
    refused = await register(gateway, api, status=422, base_url=None)
    assert "send `base_url`" in refused["detail"]


async def test_private_addresses_are_refused_wherever_they_are_said(open_app: Open) -> None:
    async with open_app(connect=None) as (_, client):
        for fields in (
            {"spec": {**PETS, "servers": [{"url": "http://127.0.0.1:9/v1"}]}},
            {"spec": {**PETS, "servers": [{"url": "http://{host}/", "variables": {"host": {"default": "10.0.0.1"}}}]}},
            {"spec": {"swagger": "2.0", "host": "169.254.169.254", "paths": PETS["paths"]}},
            {"spec": PETS, "base_url": "http://10.0.0.1/"},
            {"spec_url": "http://192.168.0.1/openapi.json"},
            {"spec_url": "http://127.0.0.1:9/openapi.json", "base_url": "https://api.test/"},
        ):
            for path in ("/mcp/servers", "/mcp/openapi/preview"):
                status, _, refused = await client.ask("POST", path, value={"name": "pets", **fields})
                assert (status, refused["type"][-15:]) == (422, "address-refused"), (fields, path, refused)


async def test_a_preview_shows_what_would_be_and_stores_nothing(gateway: Client, api: Api) -> None:
    many = {f"/p{number}": {"get": {"operationId": f"get{number}"}} for number in range(200)}
    value = {"spec": {**PETS, "paths": PETS["paths"] | many}, "base_url": api.url, "exclude": ["getPet"]}
    status, _, shown = await gateway.ask("POST", "/mcp/openapi/preview", value=value)
    assert status == 200, shown
    assert len(shown["tools"]) == 205
    assert shown["tokens"] > 1_000
    assert {each["operation"] for each in shown["left_out"]} == {"POST /pets/{petId}/photo", "GET /pets/{petId}"}
    assert any("`include`" in each and "?tools=search" in each for each in shown["warnings"])
    assert shown["security"] == [{"type": "apiKey", "in": "header", "name": "X-Key"}]
    assert shown["base_url"] == api.url
    assert api.asked == []
    _, _, listed = await gateway.ask("GET", "/mcp/servers", headers=JSON)
    assert listed["servers"] == []
    await register(gateway, api)
    status, _, shown = await gateway.ask("POST", "/mcp/openapi/preview", value={"name": "pets"})
    assert status == 200
    assert len(shown["tools"]) == 6
    assert len(shown["left_out"]) == 1


async def test_another_worker_calls_it_too(open_app: Open, api: Api) -> None:
    how = {"connect": None, "resolve": None, "allow_private_upstreams": True}
    async with open_app(**how) as (_, one), open_app(**how) as (other, two):
        await register(one, api)
        await until(lambda: "pets" in inside(other).sync.catalogue.servers)
        await use(two, "getPet", petId="1")
        assert api.last.target == "/v1/pets/1"


async def test_a_removed_server_leaves_no_document(gateway: Client, api: Api) -> None:
    await register(gateway, api)
    assert (await gateway.ask("DELETE", "/mcp/servers/pets"))[0] == 200
    assert await inside(gateway.app).servers.document("pets") is None  # type: ignore[arg-type]


async def test_a_document_can_not_break_out_of_a_request(gateway: Client, api: Api) -> None:
    evil = {"name": "X-A: 1\r\nHost: evil\r\nX-B", "in": "header", "schema": {"type": "string"}}
    media = "application/json;\r\nX-Evil: 1"
    paths = {
        "/a": {"get": {"parameters": [evil]}},
        "/b": {"post": {"requestBody": {"content": {media: {"schema": {"type": "string"}}}}}},
        "/../../admin": {"get": {}},
        "/x/%2e%2E/y": {"get": {}},
        "/c\r\nx: y": {"get": {}},
        "/fine?a=1#f": {"get": {"operationId": "fine", "parameters": [{"name": "q", "in": "query"}]}},
    }
    stored = await register(gateway, api, spec={**PETS, "paths": paths}, base_url=f"{api.url}/v1?api_key=S")
    assert (stored["document"]["tools"], stored["document"]["left_out"]) == (1, 5)
    await use(gateway, "fine", q="1")
    assert api.last.target == "/v1/fine?api_key=S&a=1&q=1"


async def test_an_object_can_not_set_other_parameters(gateway: Client, api: Api) -> None:
    parameters = [{"name": name, "in": "query", "schema": {"type": "object"}} for name in ("f", "other")]
    paths = {"/a": {"get": {"operationId": "a", "parameters": parameters}}}
    await register(gateway, api, spec={**PETS, "paths": paths}, base_url=f"{api.url}?api_key=S")
    for member in ("api_key", "other"):
        assert (await use(gateway, "a", f={member: "mine"}))["isError"]
    await use(gateway, "a", f={"x": "1"})
    assert api.last.target == "/a?api_key=S&x=1"


@pytest.mark.parametrize(
    "url",
    ["http://x:99999/", "http://[::1/", "http://", "http://loc alhost/", "http://u:p@x.test/", "http://x.test/#f"],
)
async def test_an_address_that_a_document_says_is_checked(gateway: Client, api: Api, url: str) -> None:
    refused = await register(gateway, api, status=422, spec={**PETS, "servers": [{"url": url}]}, base_url=None)
    assert "URL" in refused["detail"] or "base_url" in refused["detail"]
    value = {"spec": {**PETS, "servers": [{"url": url}]}}
    assert (await gateway.ask("POST", "/mcp/openapi/preview", value=value))[0] == 422


@pytest.mark.parametrize("charset", ["punycode", "undefined", "unicode_escape", "idna", "rot13", "nonsense"])
async def test_a_charset_is_one_of_those_that_are_known(gateway: Client, api: Api, charset: str) -> None:
    await register(gateway, api)
    body = b"x" * 1_000_000 + b"-" + b"a" * 1_000_000 + b"\\ud800"
    for status in (200, 500):
        api.answers["/v1/pets/1"] = Answered(status, body, f"text/plain; charset={charset}")
        found = await use(gateway, "getPet", petId="1")
        assert found["content"][0]["text"].endswith("a\\ud800")


async def test_an_answer_that_is_too_deep_is_still_told(gateway: Client, api: Api) -> None:
    await register(gateway, api)
    deep = b'{"a":' * 400 + b"1" + b"}" * 400
    api.answers["/v1/pets/1"] = Answered(200, deep)
    assert await use(gateway, "getPet", petId="1") == {"content": [{"type": "text", "text": deep.decode()}]}
    api.answers["/v1/pets"] = Answered(201, deep)
    found = await use(gateway, "createPet", name="x")
    assert found["isError"]
    assert "carried out (HTTP 201)" in found["content"][0]["text"]


async def test_what_is_cached_is_of_one_operation(gateway: Client, api: Api) -> None:
    def spec(path: str) -> dict[str, Any]:
        return {**PETS, "paths": {path: {"get": {"operationId": "same"}}}}

    cached = {"same": {"cache": {"ttl": 60, "per": "all"}}}
    await register(gateway, api, spec=spec("/one"), overrides=cached)
    for _ in range(2):
        await use(gateway, "same")
    assert [each.target for each in api.asked] == ["/v1/one"]
    assert (await gateway.ask("PATCH", "/mcp/servers/pets", value={"spec": spec("/two")}))[0] == 200
    await use(gateway, "same")
    assert api.last.target == "/v1/two"
    await register(gateway, api, name="others", spec=spec("/three"))
    status, _, refused = await gateway.ask("POST", "/mcp/tools/call", value={"name": "same", "arguments": {}})
    assert status == 409, refused


async def test_a_name_stays_the_same_operation_whatever_is_wanted(gateway: Client, api: Api) -> None:
    paths = {"/a": {"get": {"operationId": "foo"}}, "/b": {"delete": {"operationId": "foo"}}}
    await register(gateway, api, spec={**PETS, "paths": paths}, exclude=["GET /a"])
    assert await names(gateway) == {"foo_2"}
    await use(gateway, "foo_2")
    assert (api.last.method, api.last.target) == ("DELETE", "/v1/b")
    await gateway.ask("PATCH", "/mcp/servers/pets", value={"exclude": ["foo_2"]})
    assert await names(gateway) == {"foo"}


async def test_a_body_is_written_as_what_it_is_called(gateway: Client, api: Api) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    medias = {
        "xml": "application/xml",
        "form": "application/x-www-form-urlencoded; charset=utf-8",
        "text": "Text/Plain",
    }
    paths = {
        f"/{name}": {"post": {"operationId": name, "requestBody": {"content": {media: {"schema": schema}}}}}
        for name, media in medias.items()
    }
    await register(gateway, api, spec={**PETS, "paths": paths})
    for name, arguments, media, body in (
        ("xml", {"body": "<a/>"}, "application/xml", b"<a/>"),
        ("form", {"a": "1 2"}, "application/x-www-form-urlencoded", b"a=1%202"),
        ("text", {"body": "hi"}, "Text/Plain", b"hi"),
    ):
        await use(gateway, name, **arguments)
        assert (api.last.headers["content-type"], api.last.body) == (media, body)
