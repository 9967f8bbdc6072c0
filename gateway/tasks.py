"""Ending tasks for certain, keeping loops running, and doing together what comes together.

On Python 3.11 `asyncio.wait_for`, on which psycopg and its pool wait, can lose a cancellation that arrives together
with a result: a loop cancelled once then runs on for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

_AGAIN_SECONDS = 0.2
_PAUSE_SECONDS = 1.0

Item = TypeVar("Item")

log = logging.getLogger("gateway.tasks")


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, again and again, until all of them are done; what they raise is their own business."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)


async def keep(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop until cancelled: what it did not expect is logged, and it begins again."""
    while True:
        try:
            await loop()
        except Exception:
            log.exception("the loop %r failed and begins again", name)
        await asyncio.sleep(_PAUSE_SECONDS)


class Together(Generic[Item]):
    """Work that is done for many at once: what comes while it is under way is done together after it.

    A caller that is cancelled leaves its item to the others; the work goes on.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Awaitable[None]]) -> None:
        self._work = work
        self._items: list[Item] = []
        self._next: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def do(self, item: Item) -> None:
        """Have an item worked on. Raises what the work on it and its like raises."""
        self._items.append(item)
        if self._next is None:
            self._next = asyncio.create_task(self._run())
            self._next.add_done_callback(_retrieve)
        await asyncio.shield(self._next)

    async def _run(self) -> None:
        async with self._turn:
            items, self._items, self._next = self._items, [], None
            await self._work(items)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Who waited for a task may all have left: its error is not news then."""
    if not task.cancelled():
        task.exception()
