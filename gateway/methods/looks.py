"""Looks at servers' lists that callers cause: shared, and not more often than every two seconds."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_AGAIN_SECONDS = 2.0
_KEPT = 64  # looks, each of which a server can make as large as `listed` lets it

Names = frozenset[str]


@dataclass(slots=True)
class _Look:
    began: float
    task: asyncio.Task[Names]


class Looks:
    """The newest looks of this worker, by whose they are."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: OrderedDict[tuple[str, str, str], _Look] = OrderedDict()

    async def names(self, key: tuple[str, str, str], look: Callable[[], Awaitable[Names]]) -> Names:
        """What the newest look found, or a new one does. Raises what the look raises."""
        found, now = self._looks.get(key), self._clock()
        if found is None or (found.task.done() and now - found.began >= _AGAIN_SECONDS):
            found = self._looks[key] = _Look(now, asyncio.create_task(_run(look)))
            found.task.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._looks.move_to_end(key)
            if len(self._looks) > _KEPT:
                self._looks.popitem(last=False)
        return await asyncio.shield(found.task)


async def _run(look: Callable[[], Awaitable[Names]]) -> Names:
    return await look()
