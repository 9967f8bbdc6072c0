"""Which client sessions are over. A signed session id is valid until a worker knows that its session ended.

What says so first is Redis: the session's record is gone. A row in Postgres per end is for what that can't tell: a
worker that did not hear of the end and still knows the session reads the newest rows at each look at the registry, and
one that can't ask Redis asks for the row of an id that it does not know.

Nothing here grows with the ends: a worker reads no rows at its start, takes up a few at a look (where there are more,
it asks for the sessions that it knows instead), and keeps the newest ends only. Ends that come together are written
together, one transaction at a time per worker, under a lock of their own. Rows are deleted a few at a time, once their
sessions would have expired, or when there are more than a million.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

from gateway.errors import StoreUnavailable
from gateway.model.catalogue import Catalogue
from gateway.stores.postgres import Connection, Postgres
from gateway.tasks import Together

_KEPT = 10_000  # ends that a worker keeps in mind
_READ_AT_ONCE = 2_000  # rows
_MAX_ROWS = 1_000_000
_DELETED_AT_ONCE = 20_000
_DELETE_SECONDS = 10.0
_NEXT_SECONDS = 0.5
_ASK_SECONDS = 1.0
_ORDER_LOCK = 0x6D63702D656E
_IDS = "SELECT id FROM ended_sessions WHERE "
_DELETE_LOCK = _ORDER_LOCK + 1

log = logging.getLogger("gateway.sessions")


class EndedSessions:
    """The keys of sessions that are over, as far as this worker knows or can ask."""

    def __init__(self, postgres: Postgres, known: Callable[[], Collection[str]], ended: Callable[[str], None]) -> None:
        """`known` says which sessions the worker knows, `ended` is told of each of them that ended elsewhere."""
        self._postgres = postgres
        self._known = known
        self._ended = ended
        self._kept: OrderedDict[str, None] = OrderedDict()
        self._read: int | None = None  # the number of the newest row that was read; None: what we know is to be asked
        self._revision = 0
        self._writing = Together(self._write)

    def __contains__(self, key: str) -> bool:
        """Whether a session ended a short time ago."""
        return key in self._kept

    def add(self, key: str) -> None:
        """Keep in mind that a session is over."""
        self._kept[key] = None
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    async def end(self, key: str, expires: float) -> None:
        """Record that a session is over, for every worker to read. Raises StoreUnavailable."""
        await self._writing.do((key, datetime.fromtimestamp(expires, UTC)))
        self.add(key)

    async def _write(self, ends: Sequence[tuple[str, datetime]]) -> None:
        async with self._postgres.transaction() as connection:
            # numbers must become visible in their order, or a reader that saw a later one misses an earlier one
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ORDER_LOCK,))
            await connection.execute(
                "INSERT INTO ended_sessions (id, expires) SELECT * FROM unnest(%s::text[], %s::timestamptz[])",
                ([key for key, _ in ends], [expires for _, expires in ends]),
            )

    async def has(self, key: str) -> bool:
        """Whether a session is over; asks Postgres, and believes that it is not where that does not answer."""
        if key in self._kept:
            return True
        try:
            async with asyncio.timeout(_ASK_SECONDS), self._postgres.transaction() as connection:
                cursor = await connection.execute("SELECT FROM ended_sessions WHERE id = %s LIMIT 1", (key,))
                return await cursor.fetchone() is not None
        except (StoreUnavailable, TimeoutError):
            return False

    async def catch_up(self, connection: Connection) -> None:
        """Hear of what ended since the last look: from the new rows, or by asking for the sessions that are known."""
        row = await (await connection.execute("SELECT max(number) AS newest FROM ended_sessions")).fetchone()
        newest = (row and row["newest"]) or 0
        wanted: list[str] | int | None
        if self._read is None or not 0 <= newest - self._read <= _READ_AT_ONCE:
            query, wanted = "id = ANY(%s)", [key for key in self._known() if key not in self._kept] or None
        else:
            query, wanted = "number > %s", self._read if newest > self._read else None
        if wanted is not None:
            for row in await (await connection.execute(_IDS + query, (wanted,))).fetchall():
                if row["id"] not in self._kept:
                    self.add(row["id"])
                    self._ended(row["id"])
        self._read = newest

    def swapped(self, catalogue: Catalogue) -> None:
        """Take note of a new catalogue: an older revision says that another database stands behind the address."""
        if catalogue.revision < self._revision:
            self._read = None
        self._revision = catalogue.revision

    async def run(self) -> None:
        """Delete rows that are of no more use, until cancelled."""
        pause = _DELETE_SECONDS
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
            pause = _DELETE_SECONDS
            try:
                if await self.delete_some() >= _DELETED_AT_ONCE:
                    pause = _NEXT_SECONDS
            except StoreUnavailable:
                log.warning("rows of ended sessions could not be deleted; they are tried again")

    async def delete_some(self) -> int:
        """Delete some rows of sessions that would have expired by now, or that are too many; return how many."""
        async with self._postgres.transaction() as connection:
            lock = await connection.execute("SELECT pg_try_advisory_xact_lock(%s) AS ours", (_DELETE_LOCK,))
            row = await lock.fetchone()
            if not (row and row["ours"]):
                return 0  # another worker is at it
            cursor = await connection.execute(
                "DELETE FROM ended_sessions WHERE number = ANY(ARRAY("
                "(SELECT number FROM ended_sessions WHERE expires < now() ORDER BY expires LIMIT %(some)s) UNION "
                "(SELECT number FROM ended_sessions WHERE number <= (SELECT max(number) FROM ended_sessions) - %(most)s"
                " ORDER BY number LIMIT %(some)s) LIMIT %(some)s))",
                {"some": _DELETED_AT_ONCE, "most": _MAX_ROWS},
            )
            return cursor.rowcount
