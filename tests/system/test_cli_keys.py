"""The command line's keys against a running stack: made, used, changed, previewed, replaced, ended."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from gateway.cli.client import Exit
from gateway.cli.main import cli
from tests.fix_stack import Running

pytestmark = pytest.mark.system
Run = Callable[..., Result]


@pytest.fixture
def run(stack: Running) -> Iterator[Run]:
    """Run a command against the stack; the keys it may have made are revoked afterwards."""

    def run(*words: str, code: int = 0, key: str | None = None, **how: Any) -> Result:
        known = {"GATEWAY_URL": stack.url, "TERM": "dumb", "GATEWAY_KEY": key}
        done = CliRunner().invoke(cli, words, env=known, **how)
        assert done.exit_code == code, done.output
        return done

    run("servers", "add", "keystub", stack.stub)
    yield run
    run("servers", "remove", "keystub")
    run("keys", "revoke", "--owner", "cli-test")


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what another worker is told of."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def refused(stack: Running, key: str) -> bool:
    """Whether a key is refused everywhere."""
    headers = {"authorization": f"Bearer {key}"}
    urls = [f"{url}/whoami" for url in stack.replicas] * 8  # each has several workers
    return all(httpx.get(url, headers=headers).status_code == 401 for url in urls)


def made(run: Run, name: str, *words: str) -> str:
    """A key's text."""
    return run("keys", "add", name, "--owner", "cli-test", *words).stdout.strip()


def test_a_key_is_made_used_changed_and_revoked(run: Run, stack: Running) -> None:
    key = made(run, "agent", "--allow", "keystub:stub.ech?", "--expires", "30d", "--tag", "ci")
    eventually(lambda: run("tools", "list", "--json", key=key).stdout.count("inputSchema") == 1)
    run("tools", "call", "stub.echo", "text=x", key=key)
    mistyped = key[:-1] + ("b" if key.endswith("a") else "a")
    assert "its checksum does not fit" in run("tools", "list", key=mistyped, code=Exit.UNAUTHORIZED).stderr
    assert "no tool 'stub.sum'" in run("tools", "call", "stub.sum", "values=[1]", key=key, code=1).stderr
    run("keys", "update", "agent", "--allow", "keystub", "--deny", "keystub:stub.echo", "--expires", "never")
    run("tools", "call", "stub.sum", "values=[1]", key=key)
    eventually(lambda: "echo" not in run("tools", "list", "--json", key=key).stdout)
    run("tools", "call", "stub.echo", "text=x", key=key, code=1)
    shown = json.loads(run("keys", "show", "agent", "--json").stdout)
    assert (shown["tags"], shown["expires_at"]) == (["ci"], None)
    assert "agent" in run("keys", "list").stdout
    assert "agent" in run("whoami", key=key).stdout
    assert "'admin'" in run("keys", "list", key=key, code=1).stderr
    assert "is revoked" in run("keys", "revoke", "agent").stdout
    assert "agent" not in run("keys", "list").stdout
    assert "agent" in run("keys", "list", "--all").stdout
    eventually(lambda: refused(stack, key))
    assert "revoked" in run("whoami", key=key, code=4).stderr


def test_grants_are_previewed_before_they_are_given(run: Run, stack: Running, tmp_path: Path) -> None:
    made(run, "preview", "--allow", "keystub:stub.sum", "--allow", "nowhere")
    seen = run("keys", "access", "preview")
    assert "stub.sum" in seen.stdout
    assert "servers: nowhere" in seen.stderr
    grants = tmp_path / "grants.json"
    grants.write_text('{"allow": [{"annotations": {"readOnlyHint": true}}]}')
    assert "stub.sum" not in run("keys", "access", "preview", "--as-if", str(grants)).stdout
    assert "grants.json is not" not in run("keys", "update", "preview", "--grants", str(grants)).output
    grants.write_text("{")
    assert "is not JSON" in run("keys", "update", "preview", "--grants", str(grants), code=2).stderr


def test_a_key_has_limits(run: Run, stack: Running) -> None:
    key = made(run, "slow", "--allow", "keystub", "--rate", "0.01", "--burst", "1", "--per-day", "100")
    me = json.loads(run("whoami", "--json", key=key).stdout)
    assert me["limits"] == {"calls_per_second": 0.01, "burst": 1, "calls_per_day": 100}
    results = [
        CliRunner().invoke(
            cli, ["tools", "call", "stub.sum", "values=[1]", "--key", key], env={"GATEWAY_URL": stack.url}
        )
        for _ in range(8)
    ]
    assert "may take 0.01 calls a second" in results[-1].stderr
    run("keys", "update", "slow", "--unlimited")
    assert json.loads(run("keys", "show", "slow", "--json").stdout)["limits"] is None


def test_a_secret_is_replaced(run: Run, stack: Running) -> None:
    key = made(run, "rotating", "--allow", "keystub")
    new = run("keys", "rotate", "rotating", "--overlap", "0").stdout.strip()
    assert run("whoami", key=new).exit_code == 0
    eventually(lambda: refused(stack, key))
    run("whoami", key=key, code=4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("keys", "revoke"), "name a key"),
        (("keys", "show", "nobody"), "There is no key 'nobody'"),
        (("keys", "rotate", "x", "--overlap", "soon"), "is no time"),
        (("keys", "add", "x", "--role", "root"), "admin, operator, user"),
        (("keys", "add", "x", "--expires", "yesterday"), "a time to come"),
        (("keys", "update", "x"), "nothing to change"),
        (("keys", "add", "x", "--grants", "/nowhere/at/all"), "can't be read"),
    ],
)
def test_what_is_wrong_is_said(run: Run, stack: Running, words: tuple[str, ...], said: str) -> None:
    known = {"GATEWAY_URL": stack.url, "TERM": "dumb", "COLUMNS": "300"}
    done = CliRunner().invoke(cli, words, env=known)
    assert done.exit_code in (1, 2)
    assert said in " ".join(done.output.replace("│", " ").split())


def test_the_audit_is_shown_and_exported(run: Run, stack: Running) -> None:
    key = made(run, "audited", "--allow", "keystub")
    eventually(lambda: "stub.sum" in run("tools", "list", "--json", key=key).stdout)
    run("tools", "call", "stub.sum", "values=[1]", key=key)
    eventually(lambda: "stub.sum ok" in run("audit", "tail", "--no-follow", "--principal", "audited").stdout)
    assert "mcp.keys.create key:" in run("audit", "tail", "--no-follow", "--kind", "change").stdout
    lines = run("audit", "export", "--principal", "audited", "--since", "1h").stdout.splitlines()
    assert [json.loads(line)["tool"] for line in lines] == ["stub.sum"]
    table = run("audit", "export", "--format", "csv", "--principal", "audited", key=key).stdout.splitlines()
    assert (len(table), table[0].split(",")[:3]) == (2, ["at", "kind", "principal"])
    assert "with its zone" in run("audit", "export", "--since", "x", code=1).stderr
