"""Keeps this worker's catalogue at the registry's revision: a hint, a reconnect or the clock makes it look.

Postgres is the truth. A look that fails leaves the last catalogue in place.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from gateway.errors import StoreUnavailable
from gateway.model.catalogue import Catalogue
from gateway.stores.hints import Bus
from gateway.stores.postgres import Store
from gateway.tasks import end

_LOOK_AT_MOST_EVERY = 0.25  # seconds, for looks that callers with unknown names cause

_CALLER_SECONDS = 1.0
_FORGET_ABOVE = 1_000  # ended sessions

log = logging.getLogger("gateway.sync")


class Sync:
    """The current catalogue, and the loop that keeps it current."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        poll_seconds: float,
        clock: Callable[[], float],
        empty: Catalogue = Catalogue(),  # noqa: B008  # a frozen value
    ) -> None:
        self._store = store
        self._bus = bus
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._lock = asyncio.Lock()
        self._asked = 0
        self._served = 0
        self._look = asyncio.Event()
        self._changed = asyncio.Event()
        self._swapped: list[Callable[[Catalogue], None]] = []
        self._telling: set[asyncio.Task[bool]] = set()
        self._read_calls: list[Callable[[], None]] = []
        self._end_calls: list[Callable[[str], None]] = []
        self._sessions_read = 0
        self._forget_above = _FORGET_ABOVE
        self._looked_for_caller = 0.0
        self.catalogue = empty
        self.ended_sessions: dict[str, float] = {}
        self.read_at: float | None = None
        self.degraded: str | None = None

    def on_swap(self, call: Callable[[Catalogue], None]) -> None:
        """Have `call` told of each new catalogue, before anybody else sees it change."""
        self._swapped.append(call)

    def on_read(self, call: Callable[[], None]) -> None:
        """Have `call` told each time the registry was read."""
        self._read_calls.append(call)

    def on_session_end(self, call: Callable[[str], None]) -> None:
        """Have `call` told of each session, by its key, that ended somewhere."""
        self._end_calls.append(call)

    def end_session(self, key: str, expires: float) -> None:
        """Know that a session is over."""
        self.ended_sessions[key] = expires

    def _session_ended(self, key: str, expires: float) -> None:
        if key not in self.ended_sessions:
            self.end_session(key, expires)
            for call in self._end_calls:
                call(key)

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
        self._asked += 1
        ticket = self._asked
        async with self._lock:
            if self._served >= ticket:
                return
            serving = self._asked
            await self._read()
            self._served = serving

    async def catch_up_for_caller(self, seen: Catalogue) -> bool:
        """Look because a caller named something that is unknown in `seen`; True if there is another catalogue.

        Rate-limited, and bounded: whoever asks for nonsense must not wait for a database that is gone.
        """
        if self.catalogue is not seen:
            return True
        due = self._clock() - self._looked_for_caller >= _LOOK_AT_MOST_EVERY
        if self.degraded is None and (due or self._lock.locked()):
            self._looked_for_caller = self._clock()
            try:
                async with asyncio.timeout(_CALLER_SECONDS):
                    await self.catch_up()
            except (StoreUnavailable, TimeoutError):
                return False
        return self.catalogue is not seen

    async def changed_since(self, catalogue: Catalogue) -> Catalogue:
        """Wait until the catalogue is another one than this; return it."""
        while self.catalogue is catalogue:
            await self._changed.wait()
        return self.catalogue

    async def announce(self) -> None:
        """After a write of our own: tell the others, and read it."""
        telling = asyncio.create_task(self._bus.publish())  # a frozen Redis must not hold up the writer
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        try:
            await self.catch_up()
        except StoreUnavailable:
            self.hint()  # written it is; the loop reads it when Postgres is back

    async def close(self) -> None:
        """Let go of what is still being told."""
        await end(self._telling)

    async def _read(self) -> None:
        try:
            changes = await self._store.changes_since(self.catalogue.revision if self.read_at is not None else -1)
            for number, id, expires in await self._store.sessions_ended_since(self._sessions_read):
                self._sessions_read = number
                self._session_ended(id, expires)
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
        if len(self.ended_sessions) > self._forget_above:
            self._forget_expired()
        if changes is not None and changes.revision < self.catalogue.revision:
            self._sessions_read = 0  # another database stands behind the same address
        if changes is not None:
            self._swap(self.catalogue.apply(changes.revision, changes.servers, changes.names))

    def _forget_expired(self) -> None:
        """Ended sessions that have expired meanwhile need no remembering."""
        now = time.time()
        self.ended_sessions = {id: expires for id, expires in self.ended_sessions.items() if expires > now}
        self._forget_above = max(_FORGET_ABOVE, 2 * len(self.ended_sessions))

    def _swap(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        for call in self._swapped:
            call(catalogue)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
