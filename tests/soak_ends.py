"""A soak of ended sessions, the second part of `make soak`: ten million of them, and 200 more a second.

Ten million rows are made by SQL, as a version before would have left them. Two replicas start on them; then sessions
are opened and ended at a steady rate for half of MINUTES while a server is changed once a second. Exits 1 if a start
or a change waited for the ended sessions, if something failed, or if what is kept of them grew.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import orjson
import psycopg

from gateway.run.embedded import Stores
from tests.fix_stack import KEY, Running
from tests.talk import BOTH, request

_ROWS = 10_000_000
_KEPT = 1_000_000
_ENDS = 200  # per second
_CONNECTIONS = 64
_ASKED_PER_CONNECTION = 400  # nginx closes one after a thousand requests
_FILL = (
    "INSERT INTO ended_sessions (id, expires) "
    "SELECT md5(n::text), now() + interval '1 day' FROM generate_series(%s, %s) AS n"
)
_OPEN = request(
    "initialize", 0, protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "s", "version": "1"}
)
_HEADERS = {"host": "localhost", "authorization": f"Bearer {KEY}", "content-type": "application/json", **BOTH}

done: Counter[str] = Counter()
changes: list[float] = []


def started(running: Running) -> float:
    """Start two replicas; the seconds until they are up."""
    began = time.monotonic()
    running.start()
    return time.monotonic() - began


def fill(database: psycopg.Connection) -> None:
    """Ten million ended sessions, a million at a time."""
    for first in range(0, _ROWS, 1_000_000):
        database.execute(_FILL, (first + 1, first + 1_000_000))


def rows(database: psycopg.Connection) -> int:
    row = database.execute("SELECT count(*) FROM ended_sessions").fetchone()
    return row[0] if row else 0


def memory(running: Running) -> int:
    """MiB of all workers."""
    total = 0
    for pid in running.tree():
        try:
            if b"gateway.run.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                total += int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0])
        except (OSError, IndexError):
            continue
    return total >> 10


class Caller:
    """A client over one connection, in as few steps as it takes: httpx would be the bottleneck."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def close(self) -> None:
        self._writer.close()

    async def ask(self, method: str, body: bytes = b"", session: str = "") -> tuple[int, dict[str, str]]:
        """The status and the headers of an answer from /mcp."""
        headers = {**_HEADERS, "content-length": str(len(body))}
        if session:
            headers["mcp-session-id"] = session
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._writer.write(f"{method} /mcp HTTP/1.1\r\n{lines}\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        found = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n"))}
        await self._reader.readexactly(int(found.get("content-length", "0")))
        return int(head.split()[1]), found


async def end_sessions(base: str, until: float, share: int) -> None:
    """Open a session and end it, one of `share` at the rate."""
    where = urlsplit(base)
    due, asked, caller = time.monotonic() + random.random() * share / _ENDS, 0, None
    while (now := time.monotonic()) < until:
        if caller is None or asked % _ASKED_PER_CONNECTION == 0:
            if caller is not None:
                caller.close()
            caller = Caller(*await asyncio.open_connection(where.hostname, where.port))
        asked += 1
        await asyncio.sleep(max(0.0, due - now))
        due = max(due + share / _ENDS, time.monotonic() - 1)  # what could not be done in time is not made up for
        _, opened = await caller.ask("POST", orjson.dumps(_OPEN))
        status, _ = await caller.ask("DELETE", session=opened.get("mcp-session-id", "none"))
        done["ended" if status == 204 else f"failed: DELETE {status}"] += 1
    if caller is not None:
        caller.close()


async def change_server(http: httpx.AsyncClient, server: str, until: float) -> None:
    """Change a server once a second."""
    while (began := time.monotonic()) < until:
        answer = await http.put("/mcp/servers/changing", json={"url": server, "description": f"at {began}"})
        changes.append(time.monotonic() - began)
        done["changes" if answer.is_success else f"failed: PUT {answer.status_code} {answer.text[:90]}"] += 1
        await asyncio.sleep(1)


async def load(base: str, seconds: float, database: psycopg.Connection, running: Running) -> None:
    until = time.monotonic() + seconds
    auth = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=base, headers=auth, timeout=20, trust_env=False) as http:
        work = [asyncio.create_task(end_sessions(base, until, _CONNECTIONS)) for _ in range(_CONNECTIONS)]
        work.append(asyncio.create_task(change_server(http, running.stub, until)))
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(60.0, left))
            kept = await asyncio.to_thread(rows, database)
            print(f"  {done['ended']} ended, {kept} rows, workers {memory(running)} MiB", flush=True)
        await asyncio.gather(*work)


def soak(minutes: float) -> bool:
    bad: list[str] = []
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="mcp-gateway-soak-")))
        stores = Stores(folder / "stores")
        parts.callback(stores.stop)
        urls = stores.start()
        where = {"DATABASE_URL": urls.database_url, "REDIS_URL": urls.redis_url, "GATEWAY_LOG_LEVEL": "warning"}
        running = Running("ha", folder / "data", folder / "log", where)
        parts.callback(running.stop)
        starts = [started(running)]
        running.stop()
        starts.append(started(running))
        running.stop()
        with psycopg.connect(urls.database_url, autocommit=True) as database:
            fill(database)
            database.execute("VACUUM ANALYZE ended_sessions")
            filled = started(running)
            print(f"up in {starts[1]:.1f} s, with {rows(database)} ended sessions in {filled:.1f} s", flush=True)
            if filled > 2 * starts[1] + 2:
                bad.append("the start waited for the ended sessions")
            asyncio.run(load(running.url, 30, database, running))
            warm = memory(running)
            changes.clear()
            asyncio.run(load(running.url, minutes * 60, database, running))
            rest, kept = memory(running), rows(database)
        for what, count in sorted(done.items()):
            print(f"  {what}: {count}")
        slowest = max(changes)
        print(f"a change of a server took {statistics.median(changes) * 1000:.0f} ms, {slowest * 1000:.0f} at most")
        if slowest > 4:
            bad.append("a change of a server waited for the ended sessions")
        if rest > 1.25 * warm + 20:
            bad.append(f"the workers grew from {warm} to {rest} MiB")
        if minutes >= 10 and kept > 1.2 * _KEPT:
            bad.append(f"{kept} rows are kept")
        if done["ended"] < 0.9 * _ENDS * minutes * 60:
            bad.append("fewer sessions ended than asked for")
        bad += [name for name in done if name.startswith("failed")]
    for each in bad:
        print(f"WENT WRONG: {each}")
    print("soak of ended sessions: fine" if not bad else "soak of ended sessions: NOT fine")
    return not bad


if __name__ == "__main__":
    sys.exit(0 if soak(float(os.environ.get("MINUTES", "20")) / 2) else 1)
