"""The page of twenty people and three teams, run as it stands against a stack."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.fix_stack import Running

pytestmark = pytest.mark.system

PAGE = Path(__file__).parent.parent.parent / "docs" / "teams.rst"
SERVERS = ("handbook", "crm", "warehouse", "tickets")


def blocks() -> list[str]:
    """The page's commands, a block at a time."""
    found = re.findall(r"\.\. code-block:: sh\n\n((?:    .*\n|\n)+)", PAGE.read_text())
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in found]


def test_the_page_does_what_it_says(stack: Running, tmp_path: Path) -> None:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GATEWAY_URL": stack.url,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(PAGE.parent.parent),
    }

    def run(commands: str) -> str:
        commands = re.sub(r"https://\w+\.example\.org/mcp", stack.stub, commands)
        done = subprocess.run(
            ["sh", "-euc", commands], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        return done.stdout

    def tools(name: str) -> set[str]:
        """The servers whose tools somebody sees, at any worker of any replica."""
        headers = {"authorization": f"Bearer {(tmp_path / 'keys' / name).read_text().strip()}"}
        answers = [
            httpx.get(f"{url}/mcp/tools", headers=headers | {"accept": "application/json"}).json()
            for url in stack.replicas * 4
        ]
        seen = [{tool["server"] for tool in answer.get("tools", [])} for answer in answers]
        return seen[0] if all(each == seen[0] for each in seen) else {"not yet"}

    def eventually(name: str, servers: set[str]) -> None:
        deadline = time.monotonic() + 15
        while (seen := tools(name)) != servers:
            assert time.monotonic() < deadline, (name, seen)
            time.sleep(0.1)

    first, people, others, seen, moves, leaves, who = blocks()
    try:
        run(first)
        run(people)
        run(others)
        eventually("ann", {"handbook", "crm"})
        eventually("ben", {"handbook", "crm"})
        eventually("hal", {"handbook", "warehouse"})
        eventually("tom", {"handbook", "tickets"})
        eventually("nightly", {"warehouse"})
        said = run(seen)
        assert "crm__stub.echo" in said
        assert "calls_per_day" in said
        run(moves)
        eventually("ben", {"handbook", "warehouse"})
        old = (tmp_path / "keys" / "nightly").read_text()
        run(leaves)
        assert (tmp_path / "keys" / "nightly").read_text() != old
        eventually("nightly", {"warehouse"})
        eventually("ola", set())
        assert "crm" not in tools("support-agent")
        said = run(who)
        assert "mcp.keys.revoke" in said
        assert (tmp_path / "nightly.csv").read_text().startswith("at,kind,principal")
    finally:
        with stack.client() as client:
            for server in SERVERS:
                client.delete(f"/mcp/servers/{server}")
            for key in client.get("/keys").json()["keys"]:
                client.delete(f"/keys/{key['id']}")
