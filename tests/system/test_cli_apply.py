"""`mcp-gateway apply` against a stack of its own: idempotent, checked, pruned; keys written once."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from gateway.cli.main import cli
from tests.fix_stack import Running

pytestmark = pytest.mark.system
Run = Callable[..., Result]


@pytest.fixture
def own(start_stack: Callable[..., Running]) -> Running:
    return start_stack("run")


@pytest.fixture
def run(own: Running) -> Run:
    def run(*words: str, code: int = 0, **env: str) -> Result:
        done = CliRunner().invoke(cli, words, env={"GATEWAY_URL": own.url, "TERM": "dumb", **env})
        assert done.exit_code == code, done.output
        time.sleep(0.3)  # the other worker hears of it
        return done

    return run


def test_what_files_say_is_made_so_and_stays(run: Run, own: Running, tmp_path: Path) -> None:
    (tmp_path / "servers.yaml").write_text(
        f"servers:\n  docs:\n    url: {own.stub}\n    tags: [public]\n    headers: {{X-Key: '${{env:APPLY_TOKEN}}'}}\n"
    )
    keys: dict[str, Any] = {
        "ann": {"owner": "ann@example.org", "grants": {"allow": [{"servers": ["docs"]}]}},
        "late": {"role": "operator", "expires_at": f"{datetime.now(UTC) + timedelta(days=90):%Y-%m-%dT00:00:00Z}"},
    }
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    out = tmp_path / "out" / "keys.ndjson"
    out.parent.mkdir()
    token = {"APPLY_TOKEN": "secret-of-it"}
    files = str(tmp_path)
    assert "3 to add" in run("apply", files, "--check", "--resolve", code=5, **token).stdout
    assert "--keys-out" in run("apply", files, "--resolve", code=2, **token).stderr
    done = run("apply", files, "--resolve", "--keys-out", str(out), **token)
    assert "3 added, 0 changed, 0 removed, 0 the same" in done.stdout
    assert "secret-of-it" not in done.output
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["name"] for line in lines] == ["ann", "late"]
    assert out.stat().st_mode & 0o777 == 0o600
    assert lines[0]["key"] not in done.output
    me = httpx.get(f"{own.url}/whoami", headers={"authorization": f"Bearer {lines[0]['key']}"}).json()
    assert me["name"] == "ann"

    assert "3 the same" in run("apply", files, "--check", "--resolve", **token).stdout
    assert "0 added, 0 changed, 0 removed, 3 the same" in run("apply", files, "--resolve", **token).stdout
    assert "headers" in run("apply", files, "--check", "--resolve", code=5, APPLY_TOKEN="another").stdout

    run("servers", "update", "docs", "--description", "by hand")
    assert "description" in run("apply", files, "--check", "--resolve", code=5, **token).stdout
    keys["ann"]["owner"] = "bob@example.org"
    del keys["late"]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    done = run("apply", files, "--prune", "--resolve", **token)
    assert "0 added, 2 changed, 2 removed" in done.stdout  # the key `late`, and the stub that `run` registers
    assert json.loads(run("export").stdout)["servers"].keys() == {"docs"}
    assert json.loads(run("servers", "show", "docs", "--json").stdout)["description"] == ""
    assert "0 added, 0 changed, 0 removed, 2 the same" in run("apply", files, "--prune", "--resolve", **token).stdout


def test_nothing_is_done_of_files_that_are_wrong(run: Run, own: Running, tmp_path: Path) -> None:
    def said(text: str, code: int) -> str:
        file = tmp_path / "one.yaml"
        file.write_text(text)
        done = run("apply", str(file), code=code)
        return done.stdout + done.stderr

    assert "line 3, column 1" in said("servers:\n  a: [\n", 2)
    assert "'tools' is none of" in said("tools: {}\n", 2)
    assert "It takes no secret" in said("keys:\n  a: {secret: x}\n", 1)
    assert "http://" in said(f"servers:\n  bad: {{url: 'ftp://x'}}\n  good: {{url: '{own.stub}'}}\n", 1)
    assert "nothing was done" in said(f"servers:\n  bad: {{url: 'ftp://x'}}\n  good: {{url: '{own.stub}'}}\n", 1)
    assert "good" not in run("export").stdout
    keys_out = ("--keys-out", str(tmp_path / "out.ndjson"))
    bad_key = tmp_path / "key.yaml"
    bad_key.write_text("keys:\n  old: {expires_at: 2001-01-01T00:00:00Z}\n  good: {}\n")
    told = run("apply", str(bad_key), *keys_out, code=1).stdout
    assert "expires_at" in told
    assert "1 added" in told
    bad_key.unlink()
    assert "HOME" in said(f"servers:\n  env: {{url: '{own.stub}', headers: {{A: '${{env:HOME}}'}}}}\n", 1)
    assert "can't be read" in run("apply", str(tmp_path / "nothing.yaml"), code=2).stderr
    (tmp_path / "two.yaml").write_text(f"servers: {{a: {{url: '{own.stub}'}}}}\n")
    (tmp_path / "one.yaml").write_text(f"servers: {{a: {{url: '{own.stub}'}}}}\n")
    assert "stands in another file" in run("apply", str(tmp_path), code=2).stderr
    (tmp_path / "empty").mkdir()
    assert "has no file" in run("apply", str(tmp_path / "empty"), code=2).stderr


def test_trust_that_a_new_address_takes_away_is_given_again(run: Run, own: Running, tmp_path: Path) -> None:
    """One run is enough: the toolset, which was as it should be, is not any more once its server is another."""
    trusted = {"echo": {"annotations": {"readOnlyHint": True}, "trust": True}}
    wanted: dict[str, Any] = {
        "servers": {"docs": {"url": own.stub}},
        "toolsets": {"t": {"include": [{"servers": ["docs"]}], "overrides": {"docs": trusted}}},
    }
    file = tmp_path / "all.json"
    for url in (own.stub, f"{own.stub}?v=2"):
        wanted["servers"]["docs"]["url"] = url
        file.write_text(json.dumps(wanted))
        run("apply", str(file))
        assert "2 the same" in run("apply", str(file), "--check").stdout
    shown = json.loads(run("toolsets", "show", "t", "--json").stdout)
    assert shown["overrides"]["docs"] == trusted
