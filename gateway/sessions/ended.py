"""Which client sessions are over. A signed session id is valid until a worker knows that its session ended.

A row in Postgres per ended session, until it would have expired anyway. A worker hears of an end at once over Redis
(`Sessions`); this feed is what it reads at each look at the registry, so that none is missed without Redis.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from gateway.model.catalogue import Catalogue
from gateway.stores.postgres import Connection, Postgres

_FORGET_ABOVE = 1_000  # ended sessions


class EndedSessions:
    """The keys of the sessions that are over, as far as this worker knows."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._expires: dict[str, float] = {}
        self._read = 0
        self._revision = 0
        self._forget_above = _FORGET_ABOVE
        self._calls: list[Callable[[str], None]] = []

    def __contains__(self, key: str) -> bool:
        return key in self._expires

    def on_end(self, call: Callable[[str], None]) -> None:
        """Have `call` told of each session, by its key, that ended somewhere."""
        self._calls.append(call)

    def add(self, key: str, expires: float) -> None:
        """Know that a session is over."""
        self._expires[key] = expires

    async def end(self, key: str, expires: float) -> None:
        """Record that a session is over, for every worker to read. Raises StoreUnavailable."""
        async with self._postgres.transaction() as connection:
            # numbers must become visible in their order, or a reader that saw a later one misses an earlier one
            await connection.execute("SELECT revision FROM registry FOR UPDATE")
            await connection.execute(
                "INSERT INTO ended_sessions (id, expires) VALUES (%s, %s)",
                (key, datetime.fromtimestamp(expires, UTC)),
            )
            await connection.execute("DELETE FROM ended_sessions WHERE expires < now()")
        self.add(key, expires)

    async def catch_up(self, connection: Connection) -> None:
        """Read what ended since the last look."""
        cursor = await connection.execute(
            "SELECT number, id, expires FROM ended_sessions WHERE number > %s AND expires > now() ORDER BY number",
            (self._read,),
        )
        for row in await cursor.fetchall():
            self._read = row["number"]
            if row["id"] not in self._expires:
                self.add(row["id"], row["expires"].timestamp())
                for call in self._calls:
                    call(row["id"])
        if len(self._expires) > self._forget_above:
            self._forget_expired()

    def swapped(self, catalogue: Catalogue) -> None:
        """Take note of a new catalogue: an older revision says that another database stands behind the address."""
        if catalogue.revision < self._revision:
            self._read = 0
        self._revision = catalogue.revision

    def _forget_expired(self) -> None:
        now = time.time()
        self._expires = {key: expires for key, expires in self._expires.items() if expires > now}
        self._forget_above = max(_FORGET_ABOVE, 2 * len(self._expires))
