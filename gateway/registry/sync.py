"""Keeps this worker's catalogue at the registry's revision.

Postgres is the truth; a catalogue is a copy of it as of one revision, replaced as a whole and never changed. A worker
looks for a newer one when: another worker's hint arrives over Redis, a subscription to hints is made anew (what was
said in between is lost), the clock says so (GATEWAY_POLL_SECONDS), it wrote something itself, or a caller named
something that is unknown here (at most four times a second). So a change is seen at once with Redis, within the poll
without it.

A look reads all rows with a higher revision than ours, and the names of all, in one snapshot. That is complete, since
every change takes the next revision under the lock of one row: revisions become visible in their order. Looks are
shared: `catch_up` waits for a read that began after it was called, and all that wait meanwhile take the same one. A
lower revision than ours says that another database stands behind the address: everything is read anew.

A look that fails leaves the last catalogue in place and says so in `degraded`: calls and lists go on from memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.errors import StoreUnavailable
from gateway.model.catalogue import Catalogue
from gateway.model.view import Snapshot
from gateway.registry.servers import Read, ServerTable
from gateway.stores.hints import Hints
from gateway.tasks import end

_LOOK_AT_MOST_EVERY = 0.25  # seconds, for looks that callers with unknown names cause

_CALLER_SECONDS = 1.0
_BUILD_SECONDS = 0.002  # for which tables are made before others have their turn

log = logging.getLogger("gateway.sync")


class Sync:
    """The current catalogue, and the loop that keeps it current."""

    def __init__(
        self,
        servers: ServerTable,
        hints: Hints,
        poll_seconds: float,
        clock: Callable[[], float],
        empty: Catalogue = Catalogue(),  # noqa: B008  # a frozen value
    ) -> None:
        self._servers = servers
        self._hints = hints
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._lock = asyncio.Lock()
        self._tickets = 0
        self._served = 0
        self._look = asyncio.Event()
        self._changed = asyncio.Event()
        self._swapped: list[Callable[[Catalogue], None]] = []
        self._publishing: set[asyncio.Task[bool]] = set()
        self._read_calls: list[Callable[[], None]] = []
        self._feeds: list[Read] = []
        self._looked_for_caller = 0.0
        self.catalogue = empty
        self.read_at: float | None = None
        self.degraded: str | None = None

    def on_swap(self, call: Callable[[Catalogue], None]) -> None:
        """Have `call` told of each new catalogue, before anybody else sees it change."""
        self._swapped.append(call)

    def on_read(self, call: Callable[[], None]) -> None:
        """Have `call` told each time the registry was read."""
        self._read_calls.append(call)

    def follow(self, read: Read) -> None:
        """Have something else that stands in the same database read at each look, in the same snapshot."""
        self._feeds.append(read)

    @property
    def lag(self) -> float | None:
        """Seconds since the registry was last read."""
        return None if self.read_at is None else self._clock() - self.read_at

    def hint(self) -> None:
        """Look soon."""
        self._look.set()

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            try:
                await self.catch_up()
            except StoreUnavailable:
                await asyncio.sleep(min(0.2, self._poll_seconds))

    async def catch_up(self) -> None:
        """Read all that was committed before this call; callers share one read. Raises StoreUnavailable."""
        self._tickets += 1
        ticket = self._tickets
        async with self._lock:
            if self._served >= ticket:
                return
            serving = self._tickets
            await self._read()
            self._served = serving

    async def catch_up_for_caller(self, seen: Snapshot) -> bool:
        """Look because a caller named something that is unknown in `seen`; True if there is another catalogue.

        Rate-limited, and bounded: a call for a name that does not exist must not wait for a database that is gone.
        """
        if self.catalogue is not seen:
            return True
        await self.look_for_caller()
        return self.catalogue is not seen

    async def look_for_caller(self) -> None:
        """Look because a caller named something that is unknown here. Rate-limited, and bounded."""
        due = self._clock() - self._looked_for_caller >= _LOOK_AT_MOST_EVERY
        if self.degraded is None and (due or self._lock.locked()):
            self._looked_for_caller = self._clock()
            try:
                async with asyncio.timeout(_CALLER_SECONDS):
                    await self.catch_up()
            except (StoreUnavailable, TimeoutError):
                pass

    async def changed_since(self, catalogue: Catalogue) -> Catalogue:
        """Wait until the catalogue is another one than this; return it."""
        while self.catalogue is catalogue:
            await self._changed.wait()
        return self.catalogue

    def hint_others(self) -> None:
        """After a write of our own: have the other workers look."""
        publishing = asyncio.create_task(self._hints.publish())  # a frozen Redis must not hold up the writer
        self._publishing.add(publishing)
        publishing.add_done_callback(self._publishing.discard)

    async def announce(self) -> None:
        """After a write of our own: tell the others, and read it."""
        self.hint_others()
        try:
            await self.catch_up()
        except StoreUnavailable:
            self.hint()  # written it is; the loop reads it when Postgres is back

    async def close(self) -> None:
        """Let go of what is still being told."""
        await end(self._publishing)

    async def _read(self) -> None:
        try:
            known = self.catalogue.revision if self.read_at is not None else -1
            changes = await self._servers.changes_since(known, *self._feeds)
        except StoreUnavailable:
            if self.degraded is None:
                log.warning("registry unavailable, serving revision %d from memory", self.catalogue.revision)
            self.degraded = "the registry's database does not answer; serving from memory"
            raise
        if self.degraded is not None:
            log.info("registry available again")
            self.degraded = None
        self.read_at = self._clock()
        for call in self._read_calls:
            call()
        if changes is not None:
            catalogue = self.catalogue.apply(
                changes.revision, changes.servers, changes.names, changes.toolsets, changes.slugs
            )
            began = self._clock()
            for _ in catalogue.build():
                if self._clock() - began > _BUILD_SECONDS:
                    await asyncio.sleep(0)
                    began = self._clock()
            self._swap(catalogue)

    def _swap(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        for call in self._swapped:
            call(catalogue)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
