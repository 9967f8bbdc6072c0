"""The compiler's process: what it is given, and what is kept of its answers."""

import json
import sys
from pathlib import Path

import pytest

from gateway.openapi import runner
from gateway.openapi.job import BadDocument, Job
from gateway.openapi.runner import CompilerRunner

pytestmark = pytest.mark.anyio
GOOD = json.dumps({"openapi": "3.1.0", "paths": {"/a": {"get": {}}}}).encode()
JOB = Job(base_url="https://api.test")


@pytest.mark.parametrize(("seconds", "is_kept"), [(300.0, True), (0.0, False)])
async def test_a_refusal_is_kept_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch, seconds: float, is_kept: bool
) -> None:
    compiler, python = CompilerRunner(), sys.executable
    monkeypatch.setattr(runner, "_REFUSED_SECONDS", seconds)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(BadDocument, match="can't start"):
        await compiler.compile(GOOD, JOB)
    monkeypatch.setattr(sys, "executable", python)
    if is_kept:
        with pytest.raises(BadDocument, match="can't start"):
            await compiler.compile(GOOD, JOB)
    else:
        assert [tool["name"] for tool in (await compiler.compile(GOOD, JOB)).tools] == ["get_a"]


async def test_the_process_has_no_secrets_and_ends_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = tmp_path / "environment"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nenv > {seen}\nexec sleep 60\n")
    python.chmod(0o755)
    monkeypatch.setenv("GATEWAY_MASTER_KEY", "sk-secret")
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(runner, "_SECONDS", 0.5)
    with pytest.raises(BadDocument, match="within"):
        await CompilerRunner().compile(GOOD, JOB)
    assert "sk-secret" not in seen.read_text()
    assert "PYTHONPATH=" in seen.read_text()
