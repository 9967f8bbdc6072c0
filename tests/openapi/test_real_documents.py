"""Documents of real APIs: each operation is a tool of which a request can be made, or has a stated reason."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from gateway.model.schema_check import SchemaCheck
from gateway.openapi.compiler import compile_document
from gateway.openapi.document import read_document
from gateway.openapi.job import Compiled, Job
from gateway.openapi.plan import Plan
from gateway.openapi.request import request_of

DOCUMENTS = sorted((Path(__file__).parent / "documents").glob("*.gz"))
VERBS = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}
LEFT_OUT = {
    "blockfrost": 8,
    "box": 16,
    "gitlab": 1,
    "kubernetes": 12,
    "linode": 3,
    "petstore-2": 1,
    "spotify": 1,
    "vercel": 2,
}
"""How many operations of a document are no tools; of those that are not named here, none."""


def compiled(path: Path) -> tuple[dict[str, Any], Compiled]:
    data = gzip.decompress(path.read_bytes())
    return read_document(data), compile_document(data, Job(base_url="https://api.test/base"))


def test_there_are_twenty_real_ones_of_each_version() -> None:
    assert len(DOCUMENTS) >= 24
    versions = {str(document.get("swagger", document.get("openapi")))[:3] for document, _ in map(compiled, DOCUMENTS)}
    assert versions == {"2.0", "3.0", "3.1"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name.split(".")[0])
def test_each_operation_is_a_tool_or_has_a_reason(path: Path) -> None:
    document, found = compiled(path)
    operations = {f"{verb.upper()} {at}" for at, item in document["paths"].items() for verb in VERBS & item.keys()}
    made = {tool["description"].rsplit("\n\n", 1)[-1].removeprefix("Deprecated. ") for tool in found.tools}
    left_out = {each["operation"] for each in found.left_out}
    assert made | left_out == operations
    assert len(found.tools) + len(found.left_out) == len(operations)
    assert all(each["reason"] for each in found.left_out)
    assert len(left_out) == LEFT_OUT.get(path.name.split(".")[0], 0), found.left_out
    names = [tool["name"] for tool in found.tools]
    assert len(set(names)) == len(names)
    for tool in found.tools:
        _check(tool, Plan.from_json(json.loads(json.dumps(found.plans[tool["name"]]))))


def _check(tool: dict[str, Any], plan: Plan) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", tool["name"])
    assert f"{plan.method} {plan.path}" in tool["description"]
    assert tool["annotations"]["readOnlyHint"] is (plan.method == "GET")
    schema = tool["inputSchema"]
    for each in (schema, *([tool["outputSchema"]] if "outputSchema" in tool else [])):
        assert each["type"] == "object"
        assert jsonschema_rs.meta.is_valid({"$schema": "https://json-schema.org/draft/2020-12/schema", **each})
        SchemaCheck(each)
    assert ("outputSchema" in tool) == (plan.output is not None)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) for name in schema["properties"])
    assert set(plan.required) == set(schema.get("required", ()))
    request = request_of("https://api.test/base", plan, dict.fromkeys(schema["properties"], "1"))
    assert request.url.startswith("https://api.test/base/")
    assert "{" not in request.url.partition("?")[0]
    assert plan.body is not None or request.body is None
    assert request.body or not schema["properties"].keys() - plan.places.keys()
