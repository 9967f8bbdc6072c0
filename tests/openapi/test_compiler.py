"""Small documents, compiled: how what they say becomes tools."""

import json
from typing import Any

import pytest

from gateway.openapi.compiler import compile_document
from gateway.openapi.document import read_document
from gateway.openapi.job import BadDocument, Compiled, Job

Json = dict[str, Any]
BASE = Job(base_url="https://api.test")


def of(operation: Json, version: str = "3.0.3", verb: str = "post", path: str = "/x", **document: Any) -> Compiled:
    whole = {"openapi": version, "info": {"title": "t", "version": "1"}, "paths": {path: {verb: operation}}} | document
    return compile_document(json.dumps(whole).encode(), BASE)


def schema_of(schema: Json, version: str = "3.0.3", **document: Any) -> Json:
    """What becomes of a schema of a body's field `a`."""
    body = {"type": "object", "properties": {"a": schema}}
    (tool,) = of({"requestBody": {"content": {"application/json": {"schema": body}}}}, version, **document).tools
    found: Json = tool["inputSchema"]["properties"]["a"]
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": True, "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 1}),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": False}, {"type": "integer", "minimum": 1}),
        ({"type": "int", "required": True, "example": 5, "xml": {}, "x-a": 1}, {}),
        ({"type": "number", "multipleOf": 0, "minLength": -1, "pattern": 5}, {"type": "number"}),
        ({"type": "string", "pattern": "(?<bad"}, {"type": "string"}),
        (
            {"allOf": [{"type": "string"}], "nullable": True},
            {"anyOf": [{"allOf": [{"type": "string"}]}, {"type": "null"}]},
        ),
    ],
)
def test_schemas_of_3_0_become_json_schema(given: Json, expected: Json) -> None:
    assert schema_of(given) == expected


def test_a_circle_of_objects_stays_one() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}}
    operation = {"requestBody": {"content": {"application/json": {"schema": {"type": "array", "items": {
        "$ref": "#/components/schemas/Node"}}}}}}  # fmt: skip
    (tool,) = of(operation, components={"schemas": {"Node": node}}).tools
    schema = tool["inputSchema"]
    assert schema["properties"]["body"]["items"] == {"$ref": "#/$defs/Node"}
    assert schema["$defs"]["Node"]["properties"]["next"] == {"$ref": "#/$defs/Node"}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"$ref": "#/components/schemas/None"}, "not there"),
        ({"$ref": "other.yaml#/a"}, "another document"),
        ({"$ref": "http://x.test/a.json"}, "another document"),
        ({"$ref": "#/components/schemas/Loop"}, "circle"),
    ],
)
def test_a_reference_that_leads_nowhere_leaves_its_operation_out(schema: Json, reason: str) -> None:
    operation = {"parameters": [{"name": "a", "in": "query", "schema": {"type": "array", "items": schema}}]}
    found = of(operation, components={"schemas": {"Loop": {"$ref": "#/components/schemas/Loop"}}})
    assert found.tools == []
    assert reason in found.left_out[0]["reason"]


def test_names_that_clash_are_told_apart() -> None:
    operation = {
        "parameters": [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
            {"name": "id", "in": "query", "schema": {"type": "integer"}},
            {"name": "filter[a]", "in": "query", "schema": {"type": "string"}},
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object", "properties": {"id": {"type": "string"}}}}},
        },
    }
    found = of(operation, path="/x/{id}")
    schema = found.tools[0]["inputSchema"]
    assert set(schema["properties"]) == {"id", "id_query", "filter_a", "body"}
    assert schema["required"] == ["body", "id"]
    assert found.plans["post_x_id"]["places"]["filter_a"]["name"] == "filter[a]"
    paths = {"/a": {"get": {"operationId": "same"}}, "/b": {"get": {"operationId": "same"}}}
    assert [tool["name"] for tool in of({}, paths=paths).tools] == ["same", "same_2"]


def test_what_is_too_large_is_named_only() -> None:
    def inner(number: int) -> Json:
        return {f"p{each}": {"$ref": f"#/components/schemas/S{(number * 7 + each) % 300}"} for each in range(30)}

    schemas = {
        f"S{each}": {"type": "object", "description": "d" * 900, "properties": inner(each)} for each in range(300)
    }
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/S0"}}}}
    answer = {"200": {"description": "", "content": body["content"]}}
    (tool,) = of({"requestBody": body, "responses": answer}, components={"schemas": schemas}).tools
    assert len(json.dumps(tool["inputSchema"]["$defs"])) < 400_000
    assert len(json.dumps(tool["inputSchema"]["$defs"])) > 30_000
    assert {"type": "object", "description": "d" * 900} in tool["inputSchema"]["$defs"].values()


def test_an_answer_of_one_kind_has_a_schema_that_only_says_types() -> None:
    schema = {
        "type": "object",
        "required": ["a"],
        "additionalProperties": False,
        "properties": {
            "a": {"type": "string", "enum": ["x"], "maxLength": 1},
            "b": {"type": "integer", "writeOnly": True},
        },
    }
    answers = {"200": {"description": "", "content": {"application/json": {"schema": schema}}}}
    (tool,) = of({"responses": answers}).tools
    assert tool["outputSchema"] == {"type": "object", "properties": {"a": {"type": ["string", "null"]}}}
    (tool,) = of({"responses": answers | {"204": {"description": ""}}}).tools
    assert "outputSchema" not in tool


def test_swagger_2() -> None:
    document = {
        "swagger": "2.0",
        "host": "api.test",
        "basePath": "/v1",
        "schemes": ["http", "https"],
        "consumes": ["application/json"],
        "parameters": {"page": {"name": "page", "in": "query", "type": "integer", "default": 1}},
        "definitions": {"Pet": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}},
        "securityDefinitions": {"login": {"type": "basic"}},
        "paths": {
            "/pets": {
                "parameters": [{"$ref": "#/parameters/page"}],
                "get": {
                    "parameters": [{"name": "ids", "in": "query", "type": "array", "items": {"type": "integer"}}],
                    "responses": {"200": {"description": "", "schema": {"$ref": "#/definitions/Pet"}}},
                },
                "post": {"parameters": [{"name": "pet", "in": "body", "required": True, "schema": {
                    "$ref": "#/definitions/Pet"}}]},
                "put": {
                    "consumes": ["application/x-www-form-urlencoded"],
                    "parameters": [
                        {"name": "name", "in": "formData", "type": "string", "required": True},
                        {"name": "tags", "in": "formData", "type": "array", "items": {"type": "string"}},
                    ],
                },
                "patch": {"parameters": [{"name": "photo", "in": "formData", "type": "file"}]},
            }
        },
    }  # fmt: skip
    found = compile_document(json.dumps(document).encode(), Job())
    assert (found.format, found.base_url) == ("2.0", "https://api.test/v1")
    tools = {tool["name"]: tool for tool in found.tools}
    assert tools["get_pets"]["inputSchema"]["properties"]["page"] == {"type": "integer", "default": 1}
    assert found.plans["get_pets"]["places"]["ids"]["explode"] is False
    assert tools["get_pets"]["outputSchema"]["properties"] == {"name": {"type": ["string", "null"]}}
    assert tools["post_pets"]["inputSchema"]["required"] == ["name"]
    assert tools["put_pets"]["inputSchema"]["required"] == ["name"]
    assert found.plans["put_pets"]["body"]["styles"] == {"tags": ("form", False)}
    assert [each["reason"] for each in found.left_out] == ["it takes a file"]
    assert found.security == [{"type": "http", "scheme": "basic"}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: no\nb: 2024-01-01\nc: 010\nd: 1e3\ne: ~\nf: true\n1: x", '{"a": "no", "b": "2024-01-01", "c": "010", '
         '"d": 1000.0, "e": null, "f": true, "1": "x"}'),
        ("\ufeff{\"a\": 1}", '{"a": 1}'),
        ("x: &x {a: 1}\ny: *x\nz: {<<: *x, b: 2}", '{"x": {"a": 1}, "y": {"a": 1}, "z": {"a": 1, "b": 2}}'),
    ],
)  # fmt: skip
def test_yaml_is_read_as_json_has_it(text: str, value: str) -> None:
    assert read_document(text.encode()) == json.loads(value)


def test_a_base_url_may_be_relative_to_the_document() -> None:
    document = json.dumps({"openapi": "3.1.0", "paths": {"/a": {"get": {}}}, "servers": [{"url": "../v2"}]}).encode()
    assert compile_document(document, Job(spec_url="https://x.test/docs/o.json")).base_url == "https://x.test/v2"
    with pytest.raises(BadDocument, match="send `base_url`"):
        compile_document(document, Job())


def test_what_is_served_elsewhere_is_left_out() -> None:
    found = of({"servers": [{"url": "https://files.test"}]}, servers=[{"url": "https://other.test"}])
    assert "https://files.test" in found.left_out[0]["reason"]
    assert of({"servers": [{"url": "https://api.test/"}]}).tools
    assert of({"servers": [{"url": "https://own.test/"}]}).tools, "the only server there is"
