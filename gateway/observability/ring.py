"""What calls came to in the last seconds, by server: counts that are handed on and begin anew. Plain numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Seconds up to which a call counts to a bucket; the last bucket has no bound."""
CALLS, ERRORS, BUCKETS = 0, 1, 2
"""Where in a server's counts the calls stand, those that did not end well, and the first bucket."""
_SIZE = BUCKETS + len(BOUNDS) + 1
_MAX_SERVERS = 5_000


_bucket = partial(bisect_left, BOUNDS)


def buckets_of(seconds: Iterable[float]) -> Mapping[int, int]:
    """How many of some durations fall into which bucket."""
    return Counter(map(_bucket, seconds))


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Seconds within which this share of the calls ended, from the counts of buckets; None without calls.

    Within a bucket calls are taken as spread evenly; the last one is taken to end at twice the bound before it.
    """
    wanted, passed = share * sum(buckets), 0
    for place, count in enumerate(buckets):
        if count and passed + count >= wanted:
            low = BOUNDS[place - 1] if place else 0.0
            high = BOUNDS[place] if place < len(BOUNDS) else 2 * BOUNDS[-1]
            return low + (high - low) * (wanted - passed) / count
        passed += count
    return None


class Ring:
    """Counts of calls since they were last taken."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}

    def add(self, server: str, buckets: Mapping[int, int], *, are_errors: bool) -> None:
        """Count some calls of a server, by `buckets_of` their seconds."""
        counts = self._counts.get(server)
        if counts is None:
            if len(self._counts) >= _MAX_SERVERS:
                return
            counts = self._counts[server] = [0] * _SIZE
        for place, count in buckets.items():
            counts[CALLS] += count
            counts[ERRORS] += count * are_errors
            counts[BUCKETS + place] += count

    def take(self) -> Mapping[str, list[int]]:
        """What was counted, by server; it begins anew."""
        counts, self._counts = self._counts, {}
        return counts
