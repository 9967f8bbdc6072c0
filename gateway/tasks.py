"""Ending tasks for certain, and keeping loops running.

On Python 3.11 `asyncio.wait_for`, on which psycopg and its pool wait, can lose a cancellation that arrives together
with a result: a loop cancelled once then runs on for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

_AGAIN_SECONDS = 0.2
_PAUSE_SECONDS = 1.0

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
