"""A soak: `make soak` (MINUTES=20). Sessions, calls, streams and clients that drop, over two replicas.

Prints what each process holds (memory, descriptors, tasks) and what there is of sessions and programs: after warming
up, every minute, and when everything has come to rest. Exits 1 if something was left behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import redis

from gateway.protocol.sse import SseDecoder
from tests.fix_everything import everything
from tests.fix_stack import KEY, Running
from tests.talk import BOTH, request

_CLIENTS = 12
_IDLE_SECONDS = 20
_WARM_SECONDS = 60.0
_REST_SECONDS = 60.0
_PAUSE = 0.1
_ROOT = str(Path(__file__).parent.parent)
_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
_KINDS = {"gateway.run.worker": "worker", "gateway.programs.app": "bridge", "tests.everything": "everything"}
_AUTH = {"authorization": f"Bearer {KEY}"}
_STREAM = {"accept": "text/event-stream"}

done: Counter[str] = Counter()


class Visit:
    """One client's stay: a session, some calls, and one of several ways to leave."""

    def __init__(self, http: httpx.AsyncClient, path: str, prefix: str) -> None:
        self._http = http
        self._path = path
        self._prefix = prefix
        self._session: dict[str, str] = dict(BOTH)
        self._id = 0

    async def stay(self) -> None:
        declared: dict[str, Any] = {"sampling": {}, "roots": {}}
        opened = await self._post(
            request(
                "initialize", 0, protocolVersion=random.choice(_VERSIONS), capabilities=declared,
                clientInfo={"name": "soak", "version": "1"},
            )
        )  # fmt: skip
        self._session["mcp-session-id"] = opened.headers["mcp-session-id"]
        for _ in range(random.randint(1, 6)):
            await random.choice([self._call, self._call, self._count, self._ask, self._drop_and_resume, self._listen])()
            await asyncio.sleep(random.random() * _PAUSE)
        if random.random() < 0.6:
            await self._http.delete(self._path, headers=self._session)
            done["sessions ended"] += 1
        else:
            done["sessions left to expire"] += 1

    def _request(self, name: str, **arguments: Any) -> dict[str, Any]:
        self._id += 1
        meta = {"progressToken": self._id}
        return request("tools/call", self._id, name=f"{self._prefix}{name}", arguments=arguments, _meta=meta)

    async def _post(self, body: dict[str, Any]) -> httpx.Response:
        answer = await self._http.post(self._path, json=body, headers=self._session)
        if answer.status_code not in (200, 202):
            done[f"refused {answer.status_code} {answer.text[:100]}"] += 1
        return answer

    async def _call(self) -> None:
        answer = await self._post(self._request("test_simple_text"))
        done["calls" if "simple text" in answer.text else f"calls gone wrong: {answer.text[:150]}"] += 1

    async def _count(self) -> None:
        answer = await self._post(self._request("count", key="soak", steps=3, pause=0.02))
        done["calls with progress" if "called" in answer.text else f"counts gone wrong: {answer.text[:150]}"] += 1

    async def _ask(self) -> None:
        """A call that asks its client; the answer goes to whichever replica is next."""
        body = self._request("test_sampling", prompt="hello")
        async with self._http.stream("POST", self._path, json=body, headers=self._session) as answer:
            decoder = SseDecoder()
            async for chunk in answer.aiter_raw():
                for event in decoder.feed(chunk):
                    message = json.loads(event.data or b"{}")
                    if message.get("method") == "sampling/createMessage":
                        result = {"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m"}
                        await self._post({"jsonrpc": "2.0", "id": message["id"], "result": result})
                    elif "result" in message:
                        done["questions answered"] += 1
                    elif "error" in message:
                        done[f"questions gone wrong: {message}"] += 1

    async def _drop_and_resume(self) -> None:
        """Leave in the middle of a call; every other time take it up again."""
        body = self._request("count", key="soak", steps=4, pause=0.05)
        last = None
        async with self._http.stream("POST", self._path, json=body, headers=self._session) as answer:
            decoder = SseDecoder()
            async for chunk in answer.aiter_raw():
                if events := decoder.feed(chunk):
                    last = events[-1].id
                    break
        done["streams dropped"] += 1
        if last is None or random.random() < 0.5:
            return
        headers = self._session | _STREAM | {"last-event-id": last}
        answer = await self._http.get(self._path, headers=headers)
        done["streams resumed" if "called" in answer.text else f"resumes gone wrong: {answer.text[-200:]}"] += 1

    async def _listen(self) -> None:
        async with self._http.stream("GET", self._path, headers=self._session | _STREAM) as answer:
            async with asyncio.timeout(5):
                async for _ in answer.aiter_raw():
                    break
            await asyncio.sleep(random.random())
            done["own streams"] += 1


async def visit_old(http: httpx.AsyncClient) -> None:
    """A client of the old transport: its session ends with its stream."""
    async with http.stream("GET", "/sse", headers=_STREAM) as stream:
        decoder, endpoint, answered = SseDecoder(), "", 0
        async for chunk in stream.aiter_raw():
            for event in decoder.feed(chunk):
                if event.name == "endpoint":
                    endpoint = event.data.decode()
                    info = {"name": "soak", "version": "1"}
                    opening = request(
                        "initialize", 0, protocolVersion="2024-11-05", capabilities={}, clientInfo=info
                    )  # fmt: skip
                    await http.post(endpoint, json=opening)
                elif "id" in json.loads(event.data):
                    answered += 1
                    if answered == 4:
                        done["old clients"] += 1
                        return
                    call = request("tools/call", answered, name="http__test_simple_text")
                    await http.post(endpoint, json=call)


async def client(base: str, until: float) -> None:
    async with httpx.AsyncClient(base_url=base, headers=_AUTH, timeout=30, trust_env=False) as http:
        while time.monotonic() < until:
            name = random.choice(["http", "http", "http", "old", "program"])
            path, prefix = random.choice([("/mcp", f"{name}__"), (f"/mcp/servers/{name}/mcp", "")])
            try:
                if random.random() < 0.1:
                    await visit_old(http)
                elif random.random() < 0.1:
                    await http.post("/mcp/tools/call", json={"name": f"{name}__test_simple_text"})
                    done["REST calls"] += 1
                else:
                    await Visit(http, path, prefix).stay()
            except (httpx.HTTPError, KeyError, TimeoutError) as error:
                done[f"failed: {type(error).__name__} {str(error)[:80]}"] += 1


class Watch:
    """What there is now: per kind of process, and of sessions."""

    def __init__(self, running: Running, data: Path, ports: list[int]) -> None:
        self._running = running
        self._ports = ports
        self._redis = redis.Redis(unix_socket_path=str(next(data.glob("**/valkey.sock"), data / "valkey.sock")))

    def look(self) -> dict[str, float]:
        found: Counter[str] = Counter()
        for pid in self._running.tree():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                kind = next((name for name in _KINDS if name.encode() in command), None)
                if kind is None:
                    continue
                status = Path(f"/proc/{pid}/status").read_text()
                short = _KINDS[kind]
                found[f"{short}: processes"] += 1
                found[f"{short}: MiB"] += int(status.partition("VmRSS:")[2].split()[0]) // 1024
                found[f"{short}: descriptors"] += len(os.listdir(f"/proc/{pid}/fd"))
            except (OSError, IndexError):
                continue  # it ended just now
        for name, port in zip(("http", "old"), self._ports, strict=True):
            found[f"sessions at {name}"] = int(httpx.get(f"http://127.0.0.1:{port}/sessions", trust_env=False).text)
        for replica in self._running.replicas:
            text = httpx.get(f"{replica}/metrics", headers=_AUTH, trust_env=False).text
            for line in text.splitlines():
                for figure in ("gateway_tasks", "gateway_sessions_known", "gateway_streams", "gateway_in_flight"):
                    if line.startswith(figure + "{"):
                        found[figure.removeprefix("gateway_")] += int(float(line.rpartition(" ")[2]))
        keys = [key.decode().split(":")[1] for key in self._redis.scan_iter(count=1000)]
        found["records in Redis"] = sum(kind == "session" for kind in keys)
        found["keys in Redis"] = len(keys)
        info: Any = self._redis.info("clients")
        found["connections to Redis"] = info["connected_clients"]
        return dict(found)


def show(when: str, figures: dict[str, float]) -> None:
    print(f"{when:>12}  " + ", ".join(f"{name} {value:g}" for name, value in sorted(figures.items())), flush=True)


@asynccontextmanager
async def load(base: str, minutes: float) -> AsyncIterator[None]:
    until = time.monotonic() + minutes * 60
    async with AsyncExitStack() as parts:
        tasks = [asyncio.create_task(client(base, until)) for _ in range(_CLIENTS)]
        parts.callback(lambda: [task.cancel() for task in tasks])
        yield
        await asyncio.gather(*tasks)


async def soak(minutes: float) -> bool:
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="mcp-gateway-soak-")))
        ports = [parts.enter_context(everything()), parts.enter_context(everything("sse"))]
        running = Running(
            "ha", folder / "data", folder / "log",
            {
                "GATEWAY_ALLOW_STDIO": "true", "GATEWAY_SESSION_IDLE_SECONDS": str(_IDLE_SECONDS),
                "GATEWAY_LOG_LEVEL": "warning", "GATEWAY_RESUME_SECONDS": "30",
            },
        )  # fmt: skip
        running.start()
        parts.callback(running.stop)
        with running.client() as admin:
            program = {
                "transport_type": "stdio", "command": sys.executable, "args": ["-m", "tests.everything", "stdio"],
                "cwd": _ROOT,
            }  # fmt: skip
            for name, spec in {
                "http": {"url": f"http://127.0.0.1:{ports[0]}/mcp"},
                "old": {"url": f"http://127.0.0.1:{ports[1]}/sse"},
                "program": program,
            }.items():
                admin.put(f"/mcp/servers/{name}", json=spec).raise_for_status()
                admin.post(f"/mcp/servers/{name}/refresh").raise_for_status()
        watch = Watch(running, folder, ports)
        show("at first", watch.look())
        seconds = minutes * 60
        async with load(running.url, minutes):
            began, warm = time.monotonic(), None
            while (passed := time.monotonic() - began) < seconds:
                await asyncio.sleep(min(60.0, seconds - passed))
                now = await asyncio.to_thread(watch.look)
                show(f"{(time.monotonic() - began) / 60:.0f} min", now)
                if warm is None and passed + 60 >= _WARM_SECONDS:
                    warm = now
        busy = watch.look()
        show("at the end", busy)
        await asyncio.sleep(_IDLE_SECONDS + _REST_SECONDS)
        rest = watch.look()
        show("at rest", rest)
        for what, count in sorted(done.items()):
            print(f"  {what}: {count}")
        log = (folder / "log").read_text().splitlines()
        said = Counter(line.split(": ", 1)[-1][:100] for line in log if "WARNING" in line or "ERROR" in line)
        print("the log's warnings and errors:")
        for line, count in said.most_common(15):
            print(f"  {count} x {line}")
        return judge(warm or busy, rest)


def judge(warm: dict[str, float], rest: dict[str, float]) -> bool:
    """Compare what is left with what may be: the shared sessions of four workers, and memory as it was when warm."""
    bad = [name for name in done if "wrong" in name or "failed" in name or "refused" in name]
    wanted = {
        "sessions at http": 4,  # the workers' shared ones
        "sessions at old": 4,
        "everything: processes": 2,  # each bridge's shared program
        "records in Redis": 0,
        "sessions_known": 0,
        "streams": 0,
        "in_flight": 0,
    }
    good = not bad
    for name, most in wanted.items():
        if rest.get(name, 0) > most:
            print(f"LEFT BEHIND: {name}: {rest[name]:g}, at most {most} expected")
            good = False
    for name in ("worker: MiB", "bridge: MiB"):
        if rest[name] > 1.25 * warm[name] + 20:
            print(f"GREW: {name} from {warm[name]:g} to {rest[name]:g}")
            good = False
    for name in bad:
        print(f"WENT WRONG: {name} ({done[name]})")
    print("soak: fine" if good else "soak: NOT fine")
    return good


def main() -> int:
    return 0 if asyncio.run(soak(float(os.environ.get("MINUTES", "20")))) else 1


if __name__ == "__main__":
    sys.exit(main())
