"""How much one principal may have under way at this worker, and the end of it all when its key is no longer taken."""

from __future__ import annotations

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
        self._streams: dict[str, set[Guard]] = {}

    def enter(self, who: str, guard: Guard) -> None:
        """Count one more request of a principal, by its id; `leave` ends it. Raises TooManyRequests."""
        requests = self._requests.get(who)
        if requests is None:
            requests = self._requests[who] = set()
        elif len(requests) >= self._max_in_flight:
            raise _too_many(self._max_in_flight, "requests in flight")
        requests.add(guard)

    def leave(self, who: str, guard: Guard) -> None:
        """One request of a principal is over."""
        requests = self._requests[who]
        requests.discard(guard)
        if not requests:
            del self._requests[who]

    @contextmanager
    def stream(self, principal: Principal, guard: Guard) -> Iterator[None]:
        """Hold a place among the principal's streams. Raises TooManyRequests."""
        who = principal.id
        streams = self._streams.setdefault(who, set())
        if len(streams) >= self._max_streams:
            raise _too_many(self._max_streams, "streams")
        streams.add(guard)
        try:
            yield
        finally:
            streams.discard(guard)
            if not streams:
                self._streams.pop(who, None)

    def end(self, who: str, reason: KeyEnd) -> None:
        """Cut all that a principal has under way."""
        for guard in [*self._requests.get(who, ()), *self._streams.get(who, ())]:
            guard.cut(reason)


def _too_many(limit: int, what: str) -> TooManyRequests:
    return TooManyRequests(f"You have {limit} {what} at this worker already; wait for one to end.")
