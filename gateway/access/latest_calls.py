"""The newest calls of all replicas, read once for all who watch them in this worker.

Each tab of the page asks every second; what one key may see is read at most once in that time, however many ask. A row
is written a moment after its call ended, by whichever worker had it, so that an older one may come after a newer one:
who watches remembers which it has seen.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.access.audit import Audit, Filter
from gateway.errors import StoreUnavailable

MOST = 100
"""Rows that are looked at: of more in one second some are not shown."""

_KEPT_SECONDS = 0.9
_BACK_SECONDS = 900.0

Rows = list[tuple[int, dict[str, Any]]]
"""Numbers and rows, the newest first."""


@dataclass(frozen=True, slots=True)
class _Read:
    until: float
    task: asyncio.Task[Rows]


class LatestCalls:
    """Reads the audit for those who watch."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._reads: dict[str | None, _Read] = {}

    async def of(self, key_id: str | None) -> Rows:
        """The newest calls with a key, or (None) with any; none while the database is away."""
        now = asyncio.get_running_loop().time()
        found = self._reads.get(key_id)
        if found is None or found.until <= now:
            self._reads = {id: read for id, read in self._reads.items() if read.until > now}
            found = self._reads[key_id] = _Read(now + _KEPT_SECONDS, asyncio.create_task(self._read(key_id)))
        return await asyncio.shield(found.task)  # others may wait for it

    async def _read(self, key_id: str | None) -> Rows:
        wanted = Filter(kind="call", key_id=key_id, since=datetime.now(UTC) - timedelta(seconds=_BACK_SECONDS))
        try:
            rows = await self._audit.page(wanted, None, MOST)
        except StoreUnavailable:
            return []
        return [(number, row) for (_, number), row in rows]
