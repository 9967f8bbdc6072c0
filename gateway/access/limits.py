"""How much one principal may have under way at this worker, and the end of it all when its key is no longer taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.deadlines import Guard
from gateway.errors import TooManyRequests, Unauthorized
from gateway.model.principals import Principal


@dataclass(frozen=True, slots=True, eq=False)
class KeyEnd:
    """Why what was begun with a key comes to its end; a reason for guards."""

    text: str


REVOKED = KeyEnd("This key was revoked. Ask an administrator for a new one.")
EXPIRED = KeyEnd("This key has expired. Ask an administrator for a new one.")
REPLACED = KeyEnd("The secret of this key was replaced, and the old one is not taken any more.")


def key_ended(guard: Guard | None) -> Unauthorized | None:
    """What a cancelled request is refused with, if that was because its key is no longer taken; asked once."""
    for reason in (REVOKED, EXPIRED, REPLACED):
        if guard is not None and guard.took(reason):
            return Unauthorized(reason.text, wrong=True)
    return None


class Admission:
    """Knows what each principal has under way, and refuses what is too much."""

    def __init__(self, max_in_flight: int, max_streams: int) -> None:
        self._max_in_flight = max_in_flight
        self._max_streams = max_streams
        self._requests: dict[str, set[Guard]] = {}
        self._reads: dict[str, set[Guard]] = {}
        self._streams: Counter[str] = Counter()

    def enter(self, who: str, guard: Guard, *, reads: bool = False) -> None:
        """Count one more request of a principal, by its id; `leave` ends it. Raises TooManyRequests.

        What only `reads` may be a stream, which is bound by itself, and stay open.
        """
        held, most = self._requests, self._max_in_flight
        if reads:
            held, most = self._reads, most + self._max_streams
        requests = held.get(who)
        if requests is None:
            requests = held[who] = set()
        elif len(requests) >= most:
            raise _too_many(most, "requests in flight")
        requests.add(guard)

    def leave(self, who: str, guard: Guard, *, reads: bool = False) -> None:
        """One request of a principal is over."""
        held = self._reads if reads else self._requests
        requests = held[who]
        requests.discard(guard)
        if not requests:
            del held[who]

    @contextmanager
    def stream(self, principal: Principal) -> Iterator[None]:
        """Hold a place among the principal's streams. Raises TooManyRequests."""
        who = principal.id
        if self._streams[who] >= self._max_streams:
            raise _too_many(self._max_streams, "streams")
        self._streams[who] += 1
        try:
            yield
        finally:
            self._streams[who] -= 1
            if not self._streams[who]:
                del self._streams[who]

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._streams.total()

    def end(self, who: str, reason: KeyEnd) -> None:
        """Cut all that a principal has under way."""
        for guard in [*self._requests.get(who, ()), *self._reads.get(who, ())]:
            guard.cut(reason)


def _too_many(limit: int, what: str) -> TooManyRequests:
    return TooManyRequests(f"You have {limit} {what} at this worker already; wait for one to end.")
