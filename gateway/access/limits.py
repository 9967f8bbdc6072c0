"""How much one principal may have under way at this worker: requests, and streams that stay open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import TooManyRequests
from gateway.model.principals import Principal


class Admission:
    """Counts what each principal has under way, and refuses what is too much."""

    def __init__(self, max_in_flight: int, max_streams: int) -> None:
        self._limits = {"requests in flight": max_in_flight, "streams": max_streams}
        self._held: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def request(self, principal: Principal) -> Iterator[None]:
        """Hold a place among the principal's requests. Raises TooManyRequests."""
        with self._hold("requests in flight", principal):
            yield

    @contextmanager
    def stream(self, principal: Principal) -> Iterator[None]:
        """Hold a place among the principal's streams. Raises TooManyRequests."""
        with self._hold("streams", principal):
            yield

    @contextmanager
    def _hold(self, what: str, principal: Principal) -> Iterator[None]:
        key, limit = (what, principal.digest), self._limits[what]
        if self._held[key] >= limit:
            raise TooManyRequests(f"You have {limit} {what} at this worker already; wait for one to end.")
        self._held[key] += 1
        try:
            yield
        finally:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
