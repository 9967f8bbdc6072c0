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


class UnderWay:
    """The requests of one kind that each principal has under way."""

    def __init__(self, most: int) -> None:
        """`most` of one principal."""
        self._most = most
        self._of: dict[str, set[Guard]] = {}

    def enter(self, who: str, guard: Guard) -> None:
        """Count one more request of a principal, by its id; `leave` ends it. Raises TooManyRequests."""
        requests = self._of.get(who)
        if requests is None:
            requests = self._of[who] = set()
        elif len(requests) >= self._most:
            raise _too_many(self._most, "requests in flight")
        requests.add(guard)

    def leave(self, who: str, guard: Guard) -> None:
        """One request of a principal is over."""
        requests = self._of[who]
        requests.discard(guard)
        if not requests:
            del self._of[who]

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def cut(self, who: str, reason: KeyEnd) -> None:
        """End all requests of a principal."""
        for guard in list(self._of.get(who, ())):
            guard.cut(reason)


class Admission:
    """Knows what each principal has under way, and refuses what is too much."""

    def __init__(self, max_in_flight: int, max_streams: int) -> None:
        self.calls = UnderWay(max_in_flight)
        self.reads = UnderWay(max_in_flight + max_streams)
        """What only reads may be a stream, which is bound by itself, and stay open."""
        self._max_streams = max_streams
        self._streams: Counter[str] = Counter()

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
    def in_flight(self) -> int:
        """How many requests are being answered."""
        return len(self.calls) + len(self.reads)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._streams.total()

    def end(self, who: str, reason: KeyEnd) -> None:
        """Cut all that a principal has under way."""
        self.calls.cut(who, reason)
        self.reads.cut(who, reason)


def _too_many(limit: int, what: str) -> TooManyRequests:
    return TooManyRequests(f"You have {limit} {what} at this worker already; wait for one to end.")
