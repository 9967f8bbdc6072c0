"""The official conformance suite, direct and through the gateway: `make conformance`.

Starts the everything server, two replicas behind nginx that take turns request by request, and in front of them a
proxy that adds the key (the suite has no option for headers). Prints which checks passed direct and not through the
gateway, or the other way round; exits 0 when there are none and everything passed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from gateway.run.embedded import nginx_binary
from tests import node
from tests.fix_everything import everything
from tests.fix_stack import KEY, Running, free_ports

_PACKAGE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
_SUITES = (
    # what, arguments, checks that pass direct
    ("required of 2025-11-25", ("--requirements", "2025-11-25"), 84),
    ("all for 2025-06-18", ("--suite", "all", "--spec-version", "2025-06-18"), 56),
)
_CLIENT_SCENARIOS = ("initialize", "tools_call", "sse-retry")
_SECONDS = 300
_OF_STREAMED_LISTS = "server-sse-streams-functional"
"""Asks whether answers to tools/list that are streams work; a toolset's lists are ours, and plain JSON."""

Checks = Counter[tuple[str, str, str]]


def run_server_suite(folder: Path, url: str, arguments: tuple[str, ...]) -> Checks:
    """Run the suite against a server; return its checks as (scenario, check, status)."""
    command = ["node", str(_conformance()), "server", "--url", url, *arguments, "-o", str(folder)]
    subprocess.run(command, env=node.environment(), timeout=_SECONDS, capture_output=True)
    return checks(folder)


def run_client_scenario(folder: Path, scenario: str, gateway: str) -> tuple[Checks, str]:
    """Run one scenario against the gateway as the client of the suite's own server."""
    player = f"{sys.executable} -m tests.conformance.player {gateway}"
    command = ["node", str(_conformance()), "client", "--command", player, "--scenario", scenario, "-o", str(folder)]
    done = subprocess.run(command, env=node.environment(), timeout=_SECONDS, capture_output=True, text=True)
    return checks(folder), done.stdout + done.stderr


def checks(folder: Path) -> Checks:
    """The checks that a run left in its folder, but for what only says what went over the wire."""
    found: Checks = Counter()
    for file in sorted(folder.glob("**/checks.json")):
        scenario = file.parent.name.rpartition("-2026-")[0] or file.parent.name
        for check in json.loads(file.read_text()):
            if check["status"] in ("SUCCESS", "FAILURE", "WARNING"):
                found[scenario, check["id"], check["status"]] += 1
    return found


def passed(found: Checks) -> int:
    return sum(count for (_, _, status), count in found.items() if status == "SUCCESS")


def _conformance() -> Path:
    return node.install(_PACKAGE) / "dist" / "index.js"


_NGINX = """
worker_processes 1; pid nginx.pid; error_log stderr error; daemon off; {user}
events {{ worker_connections 1024; }}
http {{
    access_log off; client_max_body_size 0;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {target};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header Authorization "Bearer {key}";
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


@contextmanager
def adding_the_key(target: str, folder: Path) -> Iterator[str]:
    """A proxy that sends the key with every request; its URL."""
    [port] = free_ports(1)
    folder.mkdir(parents=True, exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(_NGINX.format(port=port, target=target, key=KEY, user=user))
    process = subprocess.Popen([nginx_binary(), "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"])
    try:
        _wait_for(f"http://127.0.0.1:{port}/healthz", process)
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"nothing answers at {url}")
        try:
            httpx.get(url, timeout=2, trust_env=False)
            return
        except httpx.HTTPError:
            time.sleep(0.05)


@contextmanager
def stack(folder: Path) -> Iterator[Running]:
    """Two replicas behind nginx."""
    running = Running("ha", folder / "data", folder / "log")
    running.start()
    try:
        yield running
    finally:
        running.stop()


def compare(what: str, direct: Checks, through: Checks, wanted: int) -> bool:
    """Print how two runs of a suite differ; True if they do not, and all that was wanted passed."""
    print(f"{what}: direct {passed(direct)} passed, through the gateway {passed(through)}, of {wanted}")
    for (scenario, check, status), count in sorted((direct - through).items()):
        print(f"  only direct: {scenario}: {check} {status} ({count})")
    for (scenario, check, status), count in sorted((through - direct).items()):
        print(f"  only through the gateway: {scenario}: {check} {status} ({count})")
    same = direct == through
    print("  difference: none" if same else "  difference: see above")
    return same and passed(direct) == passed(through) == wanted


def main() -> int:
    good = True
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="mcp-gateway-conformance-")))
        server = f"http://localhost:{parts.enter_context(everything())}/mcp"
        running = parts.enter_context(stack(folder))
        front = parts.enter_context(adding_the_key(running.url, folder / "front"))
        with running.client() as client:
            client.put("/mcp/servers/everything", json={"url": server}).raise_for_status()
            toolset = {"include": [{"servers": ["everything"]}], "names": "bare"}
            client.put("/mcp/toolsets/everything", json=toolset).raise_for_status()
        through = f"{front}/mcp/servers/everything/mcp"
        in_toolset = f"{front}/mcp/toolsets/everything/mcp"
        for number, (what, arguments, wanted) in enumerate(_SUITES):
            direct = run_server_suite(folder / f"direct{number}", server, arguments)
            good &= compare(what, direct, run_server_suite(folder / f"through{number}", through, arguments), wanted)
            found = run_server_suite(folder / f"toolset{number}", in_toolset, arguments)
            asked = Counter({check: count for check, count in direct.items() if check[1] != _OF_STREAMED_LISTS})
            good &= compare(f"{what}, at a toolset with bare names", asked, found, passed(asked))
        for scenario in _CLIENT_SCENARIOS:
            found, said = run_client_scenario(folder / f"client-{scenario}", scenario, running.url)
            failed = [check for (_, check, status) in found if status != "SUCCESS"]
            fine = bool(found) and not failed
            print(f"the gateway as client, {scenario}: {passed(found)} passed, {len(failed)} failed {failed or ''}")
            if not fine:
                print(said)
            good &= fine
        if "--keep" in sys.argv:
            print((folder / "log").read_text()[-5000:])
    print("conformance: everything passed" if good else "conformance: NOT everything passed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
