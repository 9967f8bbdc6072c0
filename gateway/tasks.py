"""Ending tasks for certain.

On Python 3.11 `asyncio.wait_for`, on which psycopg and its pool wait, can lose a cancellation that arrives together
with a result: a loop cancelled once then runs on for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_AGAIN_SECONDS = 0.2


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, again and again, until all of them are done; what they raise is their own business."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
