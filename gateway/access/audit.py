"""The audit: a row in Postgres for every call and every change.

A call's row waits in memory and is written with others, every 0.7 s: a call never waits for it, and the end of a
process by force loses those of the last moment. What does not fit while Postgres is away is dropped and counted. A
change's row is written in the change's own transaction: there is none without the other.

Rows stand in a partition per day, which any worker makes, a day ahead, and drops after GATEWAY_AUDIT_DAYS.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

import orjson

from gateway.errors import StoreUnavailable
from gateway.model.keyring import Keyring
from gateway.model.masking import masked
from gateway.model.principals import Principal
from gateway.stores.postgres import Connection, Postgres
from gateway.tasks import end


class Log(Protocol):
    """Writes the row of a change, with what was before and after, in the transaction of the change."""

    def __call__(
        self,
        connection: Connection,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
        of: str | None = None,
    ) -> Awaitable[None]:
        """`of` is the target of what changed along with what was asked for."""
        ...


_MAX_WAITING = 50_000
_MAX_BYTES = 32 << 20  # of arguments
_AT_ONCE = 250  # rows: the database, which may share a core with servers, is busy with them for 2 ms
_BATCH_BYTES = 2 << 20
_CLOSE_SECONDS = 3.0
_FLUSH_SECONDS = 0.7
_TEND_SECONDS = 3600.0
_TEND_LOCK = 0x61756469
_DROPPED_SECONDS = 60.0  # for which drops are shown
_MAX_ARGUMENTS = 16 << 10  # bytes of one call's that are kept
_PURPOSE = "audit arguments"
_COLUMNS = (
    "kind", "at", "number", "principal", "key_id", "method", "request_id", "replica", "address", "server", "tool",
    "outcome", "ms", "upstream_ms", "bytes", "arguments_digest", "arguments", "target", "before", "after",
)  # fmt: skip
_OF_CALLS = frozenset({"address", "server", "tool", "outcome", "ms", "upstream_ms", "bytes", "arguments_digest"})
_OF_CHANGES = frozenset({"target", "before", "after"})
_INSERT = (
    "INSERT INTO audit (at, kind, principal, key_id, method, request_id, replica, address, server, tool, outcome, ms, "
    "upstream_ms, bytes, arguments_digest, arguments) SELECT to_timestamp((r->>0)::float8), 'call', r->>1, r->>2, "
    "r->>3, r->>4, %s, r->>5, r->>6, r->>7, r->>8, round((r->>9)::numeric * 1000, 2), "
    "round((r->>10)::numeric * 1000, 2), (r->>11)::bigint, r->>12, r->>13 "
    "FROM jsonb_array_elements(convert_from(%b, 'UTF8')::jsonb) AS r"
)

log = logging.getLogger("gateway.audit")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows are asked for; None for any."""

    kind: str | None = None
    principal: str | None = None
    key_id: str | None = None
    server: str | None = None
    tool: str | None = None
    outcome: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Audit:
    """Takes rows, writes them, and finds them again."""

    def __init__(
        self,
        postgres: Postgres,
        keyring: Keyring,
        replica: str,
        *,
        which: str = "calls",
        days: int = 30,
        arguments: str = "off",
        dropped: Callable[[int], None] = lambda count: None,
    ) -> None:
        """`which` is `calls` (and changes), `changes` or `off`; `arguments` are kept `masked`, in `full` or not."""
        self.has_calls = which == "calls"
        self._has_changes = which != "off"
        self._postgres = postgres
        self._keyring = keyring
        self._replica = replica
        self._days = days
        self._arguments = arguments
        self._on_drop = dropped
        self._waiting: list[tuple[Any, ...]] = []
        self._bytes = 0
        """Of arguments that wait."""
        self._reading = asyncio.Semaphore(1)
        self._flushing = asyncio.Lock()
        self._writing: asyncio.Task[bool] | None = None
        self._is_full = asyncio.Event()
        """Set when a whole batch waits, which is written at once: a busy worker keeps few rows."""
        self._dropped = 0
        self._dropped_at = float("-inf")
        self._made: set[date] = set()

    # --- calls ----------------------------------------------------------------------------------------------------

    def call(
        self,
        at: float,
        principal: Principal,
        method: str,
        request_id: str,
        address: str,
        server: str | None,
        tool: str | None,
        outcome: str,
        seconds: float,
        upstream: float | None,
        size: int,
        arguments: Any,
    ) -> None:
        """Take one call that ended `at` a time; of its arguments a digest is kept, themselves only if asked for."""
        waiting = self._waiting
        if len(waiting) >= _MAX_WAITING or self._bytes > _MAX_BYTES:
            self._drop(1)
            return
        digest = kept = None
        if arguments:
            try:
                given = orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS)
            except TypeError:  # nested more deeply than orjson writes, which bodies above 4 MiB can be
                given = b"null"
            digest = self._keyring.digest(_PURPOSE, given)
            if self._arguments != "off":
                kept = self._kept(given)
                self._bytes += len(kept)
        waiting.append(
            (
                at, principal.name, principal.id, method, request_id, address, server, tool, outcome,
                seconds if upstream is None else seconds - upstream, upstream, size, digest, kept,
            )
        )  # fmt: skip
        if len(waiting) >= _AT_ONCE:
            self._is_full.set()

    def _kept(self, given: bytes) -> str:
        """Arguments as they are kept: cut, and in `masked` without what may be a secret."""
        if len(given) > _MAX_ARGUMENTS:
            return f'"{len(given)} bytes, more than are kept"'
        return given.decode() if self._arguments == "full" else orjson.dumps(masked(orjson.loads(given))).decode()

    def _drop(self, count: int) -> None:
        if time.monotonic() - self._dropped_at > _DROPPED_SECONDS:
            log.warning("rows of calls are dropped: the database does not take them fast enough")
        self._dropped += count
        self._dropped_at = time.monotonic()
        self._on_drop(count)

    @property
    def trouble(self) -> str | None:
        """What is missing of the audit, if something was dropped a short time ago."""
        if time.monotonic() - self._dropped_at > _DROPPED_SECONDS:
            return None
        return f"the audit lost {self._dropped} rows of calls since the start: the database does not take them"

    # --- changes --------------------------------------------------------------------------------------------------

    def of_change(self, principal: Principal, method: str, request_id: str, target: str) -> Log:
        """What writes the row of a change; `target` is `server:NAME` or `key:ID`, the latter may be yet to be made."""

        async def write(
            connection: Connection,
            before: Mapping[str, Any] | None,
            after: Mapping[str, Any] | None,
            of: str | None = None,
        ) -> None:
            if not self._has_changes:
                return
            shown = [None if each is None else orjson.dumps(each).decode() for each in (before, after)]
            named = of or target
            named = named if not named.endswith(":") else f"{named}{(after or before or {}).get('id')}"
            await self._make_partitions(connection)
            await connection.execute(
                "INSERT INTO audit (at, kind, principal, key_id, method, request_id, replica, target, before, after) "
                "VALUES (now(), 'change', %s, %s, %s, %s, %s, %s, %s, %s)",
                (principal.name, principal.id, method, request_id, self._replica, named, *shown),
            )

        return write

    # --- reading --------------------------------------------------------------------------------------------------

    async def page(
        self, wanted: Filter, after: tuple[datetime, int] | None, limit: int
    ) -> list[tuple[tuple[datetime, int], dict[str, Any]]]:
        """Rows, newest first, those older than one, each with its place. Raises StoreUnavailable."""
        where, values = ["true"], list[Any]()
        for name in ("kind", "principal", "key_id", "server", "tool", "outcome", "request_id"):
            if (value := getattr(wanted, name)) is not None:
                where.append("(server = %s OR target = %s)" if name == "server" else f"{name} = %s")
                values += [value, f"server:{value}"] if name == "server" else [value]
        for name, sign in (("since", ">="), ("until", "<")):
            if (value := getattr(wanted, name)) is not None:
                where.append(f"at {sign} %s")
                values.append(value)
        if after is not None:
            where.append("at <= %s AND (at, number) < (%s, %s)")
            values += [after[0], *after]
        query = (
            f"SELECT {', '.join(_COLUMNS)} FROM audit WHERE {' AND '.join(where)} "  # noqa: S608  # our own words
            "ORDER BY at DESC, number DESC LIMIT %s"
        )
        async with self._reading, self._postgres.transaction() as connection:  # callers leave connections to others
            rows = await (await connection.execute(query.encode(), (*values, limit))).fetchall()
        return [((row["at"], row["number"]), _shown(row)) for row in rows]

    # --- writing --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write what waits, and tend the partitions, until cancelled."""
        due, is_taken = 0.0, True
        while True:
            if time.monotonic() >= due:
                due = time.monotonic() + _TEND_SECONDS
                await self._tend()
            try:
                async with asyncio.timeout(_FLUSH_SECONDS):
                    await (self._is_full if is_taken else asyncio.Event()).wait()
            except TimeoutError:
                pass
            self._writing = asyncio.create_task(self.flush())  # goes on when we are cancelled, or rows come twice
            is_taken = await asyncio.shield(self._writing)
            if len(self._waiting) < _AT_ONCE:
                self._is_full.clear()

    async def flush(self) -> bool:
        """Write what waits now, and tell whether the database took it; what else there is waits for the next time."""
        async with self._flushing:
            return await self._flush()

    async def _flush(self) -> bool:
        left, most, is_again = len(self._waiting), _AT_ONCE, False
        while left > 0:
            rows = self._batch(min(left, most))
            try:
                if not self._days_of(rows) <= self._made:
                    async with self._postgres.transaction() as connection:
                        await self._make_partitions(connection, rows)
                await self._postgres.execute(_INSERT, (self._replica, _written(rows)))
            except StoreUnavailable:
                self._made.clear()
                return False
            except Exception:
                self._made.clear()  # a transaction that made them may not have come to its end
                if len(rows) > 1 or not is_again:
                    is_again = len(rows) == 1
                    most = max(1, len(rows) // 2)  # until the row that is refused stands alone
                    continue
                log.exception("the row of a call can't be written")
                self._drop(1)
            del self._waiting[: len(rows)]
            self._bytes -= sum(len(row[-1] or "") for row in rows)
            left -= len(rows)
        return True

    def _batch(self, most: int) -> list[tuple[Any, ...]]:
        """The rows to write together, of so many bytes of arguments at most."""
        rows = self._waiting[:most]
        if self._bytes > _BATCH_BYTES:
            size = 0
            for number, row in enumerate(rows):
                size += len(row[-1] or "")
                if size > _BATCH_BYTES:
                    return rows[: number + 1]
        return rows

    async def close(self) -> None:
        """Write the rest, after everything else has come to its end."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.flush()
        except TimeoutError:
            if self._writing is not None:
                await end([self._writing])
        if self._waiting:
            self._drop(len(self._waiting))

    def _days_of(self, rows: Sequence[tuple[Any, ...]]) -> set[date]:
        """The days whose partitions are wanted: today's, tomorrow's and those of rows, which are in order."""
        today = datetime.now(UTC).date()
        days = {today, today + timedelta(days=1)}
        if rows:  # what waited for long may be of other days
            day, last = (datetime.fromtimestamp(row[0], UTC).date() for row in (rows[0], rows[-1]))
            while day <= last and len(days) <= self._days + 2:
                days.add(day)
                day += timedelta(days=1)
        return days

    async def _make_partitions(self, connection: Connection, rows: Sequence[tuple[Any, ...]] = ()) -> None:
        """Have the partitions that rows of now, or these, go into."""
        days = self._days_of(rows)
        if days <= self._made:
            return
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_TEND_LOCK,))
        for day in sorted(days - self._made):
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS audit_{day:%Y%m%d} PARTITION OF audit "
                f"FOR VALUES FROM ('{day}T00:00Z') TO ('{day + timedelta(days=1)}T00:00Z')".encode()
            )
        self._made |= days

    async def _tend(self) -> None:
        """Make the partitions of today and tomorrow, and drop those that are too old."""
        self._made.clear()
        oldest = f"audit_{datetime.now(UTC).date() - timedelta(days=self._days):%Y%m%d}"
        try:
            async with self._postgres.transaction() as connection:
                await self._make_partitions(connection)
                cursor = await connection.execute(
                    "SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
                    "WHERE i.inhparent = 'audit'::regclass"
                )
                for row in await cursor.fetchall():
                    if row["name"] < oldest:
                        await connection.execute(f"DROP TABLE {row['name']}".encode())
        except StoreUnavailable:
            log.warning("the audit's partitions could not be tended; they are tried again")
            self._made.clear()


def _written(rows: Sequence[tuple[Any, ...]]) -> bytes:
    """Rows as JSON, without the character with which Postgres takes no text: a caller's may hold it."""
    written = orjson.dumps(rows)
    if b"\\u0000" in written:
        written = orjson.dumps([[_storable(value) for value in row] for row in rows])
    return written


def _storable(value: object) -> object:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON."""
    hidden = {"number", *(_OF_CHANGES if row["kind"] == "call" else _OF_CALLS)}
    found = {name: row[name] for name in _COLUMNS if name not in hidden}
    for name in ("before", "after", "arguments"):
        if found.get(name) is not None:
            found[name] = orjson.loads(found[name])
    if found.get("arguments", ...) is None or row["kind"] != "call":
        found.pop("arguments", None)
    return found
