"""`--openapi` of the command line, against a running stack: the stub describes itself, as far as it goes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api import PETS
from tests.command_line import Run, runner
from tests.fix_stack import Running

pytestmark = pytest.mark.system


@pytest.fixture
def run(stack: Running) -> Iterator[Run]:
    """Run a command against the stack; no server is left afterwards."""
    run = runner(stack.url)
    yield run
    with stack.client() as client:
        client.delete("/mcp/servers/pets")


@pytest.fixture
def document(tmp_path: Path) -> str:
    path = tmp_path / "pets.json"
    path.write_text(json.dumps(PETS))
    return str(path)


def test_a_preview_lists_tools_and_what_is_left_out(run: Run, stack: Running, document: str) -> None:
    named = run("servers", "add", "pets", "http://localhost:1/v1", "--openapi", document, "--dry-run")
    shown = run("servers", "add", "--openapi", document, "--dry-run", "http://localhost:1/v1")
    assert named.stdout == shown.stdout
    assert "listPets" in shown.stdout
    assert "POST /pets/{petId}/photo" in shown.stdout
    assert "Pets 1.2.0 (OpenAPI 3.0.3) at http://localhost:1/v1: 6 tools" in shown.stdout
    assert "apiKey header X-Key: send it with `--header`" in shown.stderr
    as_json = run("servers", "add", "http://localhost:1", "--openapi", document, "--dry-run", "--json").stdout
    assert len(json.loads(as_json)["tools"]) == 6
    with stack.client() as client:
        assert client.get("/mcp/servers/pets").status_code == 404


def test_an_api_is_added_and_changed(run: Run, stack: Running, document: str) -> None:
    refused = run("servers", "add", "pets", "--openapi", document, code=1)
    assert "send `base_url`" in refused.stderr
    added = run("servers", "add", "pets", stack.stub, "--openapi", document, "--include", "tag:reading")
    assert added.stdout.strip() == "pets is ready with 2 tools"
    changed = run("servers", "update", "pets", "--include", "*", "--exclude", "getP*", "--json")
    assert json.loads(changed.stdout)["counts"]["tools"] == 4
    called = run("tools", "call", "pets__delete_pets_petId", "petId=1", code=1)
    assert "HTTP 404" in called.output or "HTTP 405" in called.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pets", "http://localhost:1", "--dry-run"), "--openapi"),
        (("--openapi", "nowhere.yaml"), "name"),
        (("pets", "--openapi", "nowhere.yaml"), "can't be read"),
        (("pets", "--openapi", "nowhere.yaml", "--", "npx", "x"), "program"),
    ],
)
def test_what_is_wrong_is_said(run: Run, words: tuple[str, ...], said: str) -> None:
    assert said in run("servers", "add", *words, code=2).output
