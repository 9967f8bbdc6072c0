"""`mcp-gateway toolsets …`, and toolsets in files, against a running stack."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import Run, runner
from tests.fix_stack import Running

pytestmark = pytest.mark.system


@pytest.fixture
def run(stack: Running) -> Iterator[Run]:
    """Run a command against the stack, where a server `cli` is registered; nothing of it is left afterwards."""
    run = runner(stack.url)
    run("servers", "add", "cli", stack.stub, "--tag", "mine")
    yield run
    with stack.client() as client:
        client.delete("/mcp/servers/cli")
        client.delete("/mcp/toolsets/research")
        client.delete("/mcp/toolsets/other")


def test_a_toolset_is_made_listed_shown_changed_and_removed(run: Run, stack: Running) -> None:
    made = run(
        "toolsets", "add", "research", "--include", "cli:stub.echo", "--names", "bare", "--instructions", "Echo!"
    )
    assert made.stdout.strip() == f"research is there, with 1 tool, at {stack.url}/mcp/toolsets/research/mcp"
    assert "research" in run("toolsets", "list", "--server", "cli").stdout
    assert "research" not in run("toolsets", "list", "--server", "nowhere").stdout
    shown = json.loads(run("toolsets", "show", "research", "--json").stdout)
    assert (shown["instructions"], shown["names"], shown["servers"]) == ("Echo!", "bare", ["cli"])
    assert "cli__stub.echo" not in run("toolsets", "show", "research").stdout
    for nothing in ("", ":::"):
        assert "names nothing" in run("toolsets", "add", "other", "--include", nothing, code=2).stderr
    refused = run("toolsets", "add", "research", "--include", "cli", code=1)
    assert "`toolsets update …` changes single fields" in refused.stderr
    changed = run("toolsets", "update", "research", "--include-tag", "mine", "--exclude", "cli:stub.echo")
    assert "is changed, with 8 tools" in changed.stdout
    assert (
        "Nothing is there for servers: nowhere." in run("toolsets", "update", "research", "--include", "nowhere").stderr
    )
    assert "disabled" in run("toolsets", "disable", "research").stdout
    assert "enabled" in run("toolsets", "enable", "research").stdout
    assert run("toolsets", "remove", "research").stdout.strip() == "research is removed"
    assert "`toolsets list` shows what there is" in run("toolsets", "show", "research", code=1).stderr


def test_an_export_brings_a_toolset_back(run: Run, tmp_path: Path) -> None:
    run("toolsets", "add", "research", "--include", "cli:stub.echo", "--names", "bare", "--instructions", "Echo!")
    before = json.loads(run("toolsets", "show", "research", "--json").stdout)
    exported = json.loads(run("export").stdout)
    file = tmp_path / "all.json"
    file.write_text(json.dumps(exported | {"servers": {"cli": exported["servers"]["cli"]}}))
    assert "2 the same" in run("apply", str(file), "--check").stdout
    run("toolsets", "remove", "research")
    run("servers", "remove", "cli")
    assert "2 added" in run("apply", str(file)).stdout
    after = json.loads(run("toolsets", "show", "research", "--json").stdout)
    same = ("include", "names", "instructions", "exclude", "overrides", "mode")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert "toolsets are taken by `mcp-gateway apply`" in run("import", str(file), "--dry-run").stderr


def test_a_key_is_granted_a_toolset(run: Run) -> None:
    run("toolsets", "add", "research", "--include", "cli:stub.echo")
    made = run("keys", "add", "toolset-agent", "--allow-toolset", "research", "--json")
    assert json.loads(made.stdout)["grants"] == {"allow": [{"toolsets": ["research"]}]}
    assert "research" in run("keys", "access", "toolset-agent").stdout
    listed = run("toolsets", "list", "--json", GATEWAY_KEY=json.loads(made.stdout)["key"])
    assert [each["slug"] for each in json.loads(listed.stdout)["toolsets"]] == ["research"]
    assert "there is no toolset 'nowhere'" in run("keys", "add", "x", "--allow-toolset", "nowhere", code=1).stderr
    run("keys", "revoke", "toolset-agent")


def test_what_tools_cost_is_shown(run: Run) -> None:
    run("toolsets", "add", "research", "--include", "cli:stub.echo")
    shown = json.loads(run("tools", "cost", "--json").stdout)
    assert shown["tokens"]["full"] >= shown["tokens"]["servers"]["cli"] > shown["toolsets"]["research"]["full"] > 0
    assert "research" in run("tools", "cost").stdout
    only = json.loads(run("tools", "cost", "--toolset", "research", "--json").stdout)
    assert list(only["tools"]) == ["cli__stub.echo"]
    assert "cli__stub.sum" in run("tools", "cost", "--server", "cli").stdout


def test_tools_are_overridden(run: Run) -> None:
    run("toolsets", "add", "research", "--include", "cli:stub.sum")
    for where in ((), ("--toolset", "research")):
        done = run("overrides", "set", "cli", "stub.sum", "--name", "add", "--rename", "values=numbers", *where)
        assert done.stdout.startswith("1 tool of cli now overridden")
        address = ("cli__add",) if not where else ("add",)
        shown = json.loads(run("overrides", "show", "cli", *where, "--json").stdout)
        assert shown == {
            "overrides": {"stub.sum": {"name": "add", "arguments": {"values": {"name": "numbers"}}}},
            "problems": [],
        }
        assert "stub.sum" in run("overrides", "show", "cli", *where).stdout
        listed = run("toolsets", "show", "research") if where else run("tools", "list")
        assert address[0] in listed.stdout
    assert "6" in run("tools", "call", "cli__add", "numbers=[1, 2, 3]").stdout
    run("overrides", "set", "cli", "stub.sum", "--value", "values=[4]", "--hide", "values")
    assert "4" in run("tools", "call", "cli__stub.sum").stdout
    refused = run("overrides", "set", "cli", "stub.sum", "--hide", "values", code=1)
    assert "hidden it needs a 'value' or a 'default'" in refused.stderr
    for where in ((), ("--toolset", "research")):
        assert run("overrides", "clear", "cli", "stub.sum", *where).stdout.startswith("0 tools of cli")
        assert "has no override" in run("overrides", "clear", "cli", "stub.sum", *where, code=1).stderr


def test_toolsets_of_a_file_are_applied(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "toolsets.json"
    spec = {"title": "Research", "include": [{"servers": ["cli"], "tools": ["stub.echo"]}]}
    file.write_text(json.dumps({"toolsets": {"research": spec, "other": {"include": [{"tags": ["mine"]}]}}}))
    assert "2 to add" in run("apply", str(file), "--check", code=5).stdout
    assert "2 added" in run("apply", str(file)).stdout
    assert "2 the same" in run("apply", str(file), "--check").stdout
    file.write_text(json.dumps({"toolsets": {"research": spec | {"title": "More"}}}))
    done = run("apply", str(file), "--prune")
    assert "1 changed, 1 removed" in done.stdout
    assert json.loads(run("toolsets", "show", "research", "--json").stdout)["title"] == "More"
    file.write_text(json.dumps({"toolsets": {"research": {"include": 5}}}))
    assert "'include' must be a list" in run("apply", str(file), code=1).stdout
