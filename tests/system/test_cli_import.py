"""The command line's import, export and client-config against a running stack."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.main import cli
from gateway.model.imports import read_import
from tests.fix_stack import Running

pytestmark = pytest.mark.system
Run = Callable[..., Result]


@pytest.fixture
def run(stack: Running) -> Iterator[Run]:
    def run(*words: str, code: int = 0, env: dict[str, str | None] | None = None, **how: Any) -> Result:
        done = CliRunner().invoke(cli, words, env={"GATEWAY_URL": stack.url, "TERM": "dumb", **(env or {})}, **how)
        assert done.exit_code == code, done.output
        return done

    yield run
    CliRunner().invoke(cli, ["servers", "remove", "imported"], env={"GATEWAY_URL": stack.url})


def test_a_file_is_shown_imported_and_exported(run: Run, stack: Running, tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    headers = {"X-Key": "${env:IMPORTED_TOKEN}"}
    file.write_text(
        json.dumps({"mcpServers": {"imported": {"url": stack.stub, "headers": headers}, "odd": {}}}) + "// end"
    )
    done = run("import", str(file), "--dry-run", "--resolve", code=1, env={"IMPORTED_TOKEN": "secret-of-it"})
    assert "would be 1 added, 0 changed, 0 the same, 1 not taken" in done.stdout
    assert "neither a URL nor a command" in done.stdout
    assert "secret-of-it" not in done.output
    assert "IMPORTED_TOKEN is not set" in run("import", str(file), "--resolve", code=2).stderr
    assert "IMPORTED_TOKEN" in run("import", str(file), "--only", "imported", code=1).stdout  # a reference: not allowed
    done = run("import", str(file), "--only", "imported", "--value", "IMPORTED_TOKEN=secret-of-it")
    assert "1 added" in done.stdout
    refused = run("import", str(file), "--only", "imported", "--value", "X=1", "--dry-run", code=2)
    assert "no variable X" in refused.stderr
    exported = json.loads(run("export").stdout)
    assert exported["servers"]["imported"]["headers"] == {"X-Key": "[redacted]"}
    kept = {"format": exported["format"], "servers": {"imported": exported["servers"]["imported"]}}
    assert "1 the same" in run("import", "-", input=json.dumps(kept)).stdout


def test_a_broken_file_is_refused_with_its_place(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text('{\n  "mcpServers": {x}\n}')
    assert "line 2, column 18" in run("import", str(file), code=1).stderr
    assert "can't be read" in run("import", str(tmp_path / "nothing"), code=2).stderr
    file.write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8" in run("import", str(file), code=2).stderr


@pytest.mark.parametrize("client", ["claude-code", "claude-desktop", "cursor", "vscode", "windsurf", "zed", "curl"])
def test_each_clients_snippet_has_the_address(run: Run, stack: Running, client: str) -> None:
    said = run("client-config", client).stdout
    assert f"{stack.url}/mcp" in said
    if client not in ("claude-code", "curl"):
        [taken] = read_import(said).servers  # its product's shape, as our own importer knows it
        assert f"{stack.url}/mcp" in (taken.fields.get("url"), *taken.fields.get("args", ()))
        assert "/mcp/servers/docs/mcp" in run("client-config", client, "--server", "docs").stdout
        assert "/mcp/toolsets/research/mcp" in run("client-config", client, "--toolset", "research").stdout
    assert "claude-code" in run("client-config", "emacs", code=2).stderr
