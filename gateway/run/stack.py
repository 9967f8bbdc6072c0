"""Several processes that make up a deployment on one machine: stores, stub, replicas, nginx.

For `make run`, `make ha`, the system tests and the benchmarks. Everything listens on loopback only; whatever was
started is stopped, also when a part dies.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from gateway.errors import SettingsError
from gateway.machine import ports, privileges
from gateway.run.embedded import Stores, nginx_binary
from gateway.settings import DEMO_KEY, LOOPBACK, Settings

_READY_SECONDS = 60.0
_STOP_SECONDS = 40.0
_HOST = "127.0.0.1"

log = logging.getLogger("gateway.stack")


class Stack:
    """The parts, started in order and stopped in reverse."""

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], *, replicas: int, nginx_conf: Path | None = None
    ) -> None:
        self._settings = settings
        self._environment = {**environment, "GATEWAY_HOST": _HOST}
        if settings.host not in LOOPBACK:
            self._step(f"GATEWAY_HOST={settings.host} is for `mcp-gateway serve`: this stack listens on loopback only")
        self._environment.setdefault("GATEWAY_MASTER_KEY", settings.master_key or DEMO_KEY)
        self._environment.setdefault("GATEWAY_ALLOW_PRIVATE_UPSTREAMS", "true")
        self.key = self._environment["GATEWAY_MASTER_KEY"]
        self.ports = [settings.port, settings.replica2_port][:replicas]
        self._nginx_conf = nginx_conf
        self._stores: Stores | None = None
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._folder = Path(tempfile.mkdtemp(prefix="mcp-gateway-stack-"))
        self._stopping = False

    def __enter__(self) -> Stack:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            self._check_ports()
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def replicas(self) -> list[str]:
        return [f"http://localhost:{port}" for port in self.ports]

    @property
    def address(self) -> str:
        """Where clients go: the load balancer, or the only replica."""
        return f"http://localhost:{self._settings.nginx_port}" if self._nginx_conf else self.replicas[0]

    @property
    def stub(self) -> str:
        return f"http://localhost:{self._settings.stub_port}/mcp"

    def _step(self, text: str) -> None:
        print(f"mcp-gateway: {text}", flush=True)

    def wait_ready(self) -> None:
        """Wait until every worker of every replica, the stub and the load balancer answer. Raises SettingsError."""
        deadline = time.monotonic() + _READY_SECONDS
        for url in self.replicas:
            seen: set[str] = set()
            while len(seen) < self._settings.workers:
                self._check_time_and_parts(deadline, url)
                state = _get(f"{url}/readyz")
                if state is not None:
                    seen.add(state["worker"])
                time.sleep(0.02)
        while _get(f"{self.stub}/tools") is None or _get(f"{self.address}/healthz") is None:
            self._check_time_and_parts(deadline, self.address)
            time.sleep(0.05)

    def register_stub(self) -> None:
        """Register the stub at the gateway, under the name `stub`."""
        spec = {"url": self.stub, "description": "The demo server"}
        request = urllib.request.Request(  # noqa: S310
            f"{self.address}/mcp/servers/stub",
            json.dumps(spec).encode(),
            {"authorization": f"Bearer {self.key}", "content-type": "application/json"},
            method="PUT",
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                answer.read()
        except urllib.error.HTTPError as error:
            with error:
                self._step(f"the stub is not registered: {_detail(error.read())}")
        except OSError as error:
            self._step(f"the stub is not registered: {error}")

    def wait(self) -> int:
        """Sleep until a signal comes (0) or a part ends by itself (1)."""
        while not self._stopping:
            for name, process in self._processes:
                if process.poll() is not None:
                    log.error("%s ended by itself with code %s; stopping the rest", name, process.returncode)
                    return 1
            time.sleep(0.2)
        return 0

    def what_next(self) -> str:
        """The lines that a newcomer reads when everything is up."""
        auth = f"-H 'Authorization: Bearer {self.key}'"
        if self.key != DEMO_KEY:
            auth = '-H "Authorization: Bearer $GATEWAY_MASTER_KEY"'
        json_type = "-H 'Content-Type: application/json'"
        register = json.dumps({"name": "mine", "url": self.stub})
        call = json.dumps({"name": "stub.sum", "arguments": {"values": [1, 2, 3]}})
        progress = json.dumps({"name": "stub.progress", "arguments": {"steps": 5}})
        parts = [f"  replica {number}: {url}" for number, url in enumerate(self.replicas, 1)]
        if self._nginx_conf:
            parts.insert(0, f"  load balancer: {self.address}")
        return "\n".join(
            [
                "mcp-gateway is up (^C ends it):",
                *parts,
                f"  stub server: {self.stub}",
                f"  MCP clients: {self.address}/mcp",
                "",
                "Try, in another terminal:",
                f"  curl {auth} {json_type} {self.address}/mcp/servers -d '{register}'",
                f"  curl {auth} -H 'Accept: application/json' {self.address}/mcp/tools",
                f"  curl {auth} {json_type} {self.address}/mcp/tools/call -d '{call}'",
                f"  curl -N {auth} {json_type} -H 'Accept: text/event-stream' {self.address}/mcp/tools/call "
                f"-d '{progress}'",
            ]
        )

    def _check_ports(self) -> None:
        """Say which port is taken before anything is started. Raises SettingsError."""
        wanted = [("GATEWAY_STUB_PORT", self._settings.stub_port)]
        wanted += zip(("GATEWAY_PORT", "GATEWAY_REPLICA2_PORT"), self.ports, strict=False)
        if self._nginx_conf is not None:
            wanted.append(("GATEWAY_NGINX_PORT", self._settings.nginx_port))
        for name, port in wanted:
            ports.check_free(name, _HOST, port)

    def _start(self) -> None:
        settings, environment = self._settings, self._environment
        if settings.database_url is None or settings.redis_url is None:
            own = [
                name
                for name, url in (("Postgres", settings.database_url), ("Valkey", settings.redis_url))
                if url is None
            ]
            self._step(f"starting {' and '.join(own)} in {settings.data_dir.absolute()}")
            self._stores = Stores(
                settings.data_dir, postgres=settings.database_url is None, valkey=settings.redis_url is None
            )
            urls = self._stores.start()
            if not self._stores.owned:
                folder = settings.data_dir.absolute()
                raise SettingsError(
                    f"GATEWAY_DATA_DIR: {folder} is that of a running gateway (process {self._stores.owner}); "
                    "end it, or choose another directory."
                )
            environment["DATABASE_URL"] = settings.database_url or urls.database_url
            environment["REDIS_URL"] = settings.redis_url or urls.redis_url
        self._step(f"starting the stub on port {settings.stub_port}")
        self._spawn("stub", [sys.executable, "-m", "gateway.demo.stub", "--port", str(settings.stub_port)])
        for number, port in enumerate(self.ports, 1):
            self._step(f"starting {'the gateway' if len(self.ports) == 1 else f'replica {number}'} on port {port}")
            replica = {"GATEWAY_PORT": str(port), "GATEWAY_REPLICA": f"replica-{number}"}
            self._spawn(f"replica {number}", [sys.executable, "-m", "gateway", "serve"], environment | replica)
        if self._nginx_conf is not None:
            self._start_nginx(self._nginx_conf)

    def _start_nginx(self, source: Path) -> None:
        self._step(f"starting nginx on port {self._settings.nginx_port}")
        conf = self._folder / "nginx.conf"
        for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi", "logs"):
            (self._folder / name).mkdir()
        conf.write_text(render_nginx(source.read_text(), self._settings.nginx_port, self.ports))
        command = [str(nginx_binary()), "-p", f"{self._folder}/", "-c", str(conf), "-e", "stderr"]
        self._spawn("nginx", [*command, "-g", "daemon off;" + (" user root;" if os.geteuid() == 0 else "")])

    def _spawn(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        gently = signal.SIGQUIT if name == "nginx" else signal.SIGTERM
        process = subprocess.Popen(  # noqa: S603
            command,
            env=environment or self._environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=privileges.before_exec(gently),  # kill -9 of this process leaves none of them on a port
        )
        self._processes.append((name, process))

    def _stop(self) -> None:
        """The load balancer and the replicas drain first; only then their upstream and their stores go."""
        serving = [each for each in self._processes if each[0] != "stub"]
        for processes in (serving, [each for each in self._processes if each[0] == "stub"]):
            for name, process in processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGQUIT if name == "nginx" else signal.SIGTERM)
            deadline = time.monotonic() + _STOP_SECONDS
            for name, process in processes:
                try:
                    process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    log.warning("%s did not end in time and is killed", name)
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if self._stores is not None:
            self._stores.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _on_signal(self, number: int, _: object) -> None:
        if not self._stopping:
            self._stopping = True
            print("mcp-gateway: stopping", flush=True)

    def _check_time_and_parts(self, deadline: float, url: str) -> None:
        for name, process in self._processes:
            if process.poll() is not None:
                raise SettingsError(f"{name} ended at once with code {process.returncode}; its words are above.")
        if self._stopping:
            raise SettingsError("stopped before everything was up.")
        if time.monotonic() > deadline:
            raise SettingsError(f"{url} was not ready within {_READY_SECONDS:g} s; the log above says why.")


def render_nginx(text: str, port: int, replicas: list[int]) -> str:
    """deploy/nginx.conf with other ports: each of its defaults stands there exactly once."""
    for pattern, value in (
        (r"(listen 127\.0\.0\.1:)8080;", port),
        (r"(server 127\.0\.0\.1:)4000 ", replicas[0]),
        (r"(server 127\.0\.0\.1:)4001 ", replicas[-1]),
    ):
        text, found = re.subn(pattern, lambda match, value=value: f"{match[1]}{value}{match[0][-1]}", text)  # type: ignore[misc]  # the default binds the loop's value
        if found != 1:
            raise SettingsError(f"nginx.conf: expected {pattern!r} once, found it {found} times.")
    return text


def _detail(body: bytes) -> str:
    """What a problem document says."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _get(url: str) -> Any:
    """The JSON of a small GET, or None while it does not answer with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
            return json.load(answer)
    except (OSError, ValueError, urllib.error.URLError):
        return None
