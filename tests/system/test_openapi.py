"""The REST faces against their own OpenAPI document: schemathesis sends what it allows and checks what it promises."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi

from tests.fix_stack import KEY, Running

pytestmark = pytest.mark.system

OPERATIONS = [
    ("POST", "/mcp/servers"), ("PUT", "/mcp/servers/{name}"), ("PATCH", "/mcp/servers/{name}"),
    ("GET", "/mcp/servers/{name}"), ("DELETE", "/mcp/servers/{name}"), ("POST", "/mcp/servers/{name}/refresh"),
    ("GET", "/mcp/servers"), ("GET", "/mcp/tools"), ("GET", "/mcp/resources"), ("GET", "/mcp/prompts"),
    ("POST", "/mcp/tools/call"), ("POST", "/mcp/resources/read"), ("POST", "/mcp/prompts/get"), ("POST", "/rpc"),
    ("GET", "/v1/mcp/registry.json"), ("GET", "/v0.1/servers"), ("GET", "/whoami"), ("GET", "/audit"),
    ("GET", "/keys"), ("POST", "/keys"), ("DELETE", "/keys"), ("GET", "/keys/{id}"), ("PATCH", "/keys/{id}"),
    ("DELETE", "/keys/{id}"), ("POST", "/keys/{id}/rotate"), ("GET", "/keys/{id}/access"),
    ("POST", "/keys/{id}/access"),
]  # fmt: skip
PROMISES = [
    checks.not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_schema_conformance,
]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_gateway_keeps_what_its_document_promises(stack: Running, method: str, path: str) -> None:
    with stack.client() as client:
        document = client.get("/openapi.json").json()
        before = {server["name"] for server in _servers(client)}
        schema = schemathesis.openapi.from_dict(document)
        seen: list[int] = []

        @settings(
            max_examples=15, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck), derandomize=True,
        )  # fmt: skip
        def attempt(case: Any) -> None:
            answer = case.call(base_url=stack.url, headers={"authorization": f"Bearer {KEY}"})
            seen.append(answer.status_code)
            case.validate_response(answer, checks=PROMISES)

        given(case=schema[path][method].as_strategy())(attempt)()
        assert seen
        for key in client.get("/keys").json()["keys"]:
            client.delete(f"/keys/{key['id']}")
        for server in _servers(client):
            if server["name"] not in before:
                client.delete(f"/mcp/servers/{server['name']}")


def _servers(client: Any) -> Any:
    return client.get("/mcp/servers", headers={"accept": "application/json"}).json()["servers"]
