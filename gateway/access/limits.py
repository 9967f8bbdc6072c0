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
        self._max_in_flight = max_in_flight
        self._max_streams = max_streams
        self._requests: dict[str, int] = {}
        self._streams: Counter[str] = Counter()

    def enter(self, who: str) -> None:
        """Count one more request of a principal, by its digest; `leave` ends it. Raises TooManyRequests."""
        count = self._requests.get(who, 0)
        if count >= self._max_in_flight:
            raise _too_many(self._max_in_flight, "requests in flight")
        self._requests[who] = count + 1

    def leave(self, who: str) -> None:
        """One request of a principal is over."""
        count = self._requests[who] - 1
        if count:
            self._requests[who] = count
        else:
            del self._requests[who]

    @contextmanager
    def stream(self, principal: Principal) -> Iterator[None]:
        """Hold a place among the principal's streams. Raises TooManyRequests."""
        who = principal.digest
        if self._streams[who] >= self._max_streams:
            raise _too_many(self._max_streams, "streams")
        self._streams[who] += 1
        try:
            yield
        finally:
            self._streams[who] -= 1
            if not self._streams[who]:
                del self._streams[who]


def _too_many(limit: int, what: str) -> TooManyRequests:
    return TooManyRequests(f"You have {limit} {what} at this worker already; wait for one to end.")
