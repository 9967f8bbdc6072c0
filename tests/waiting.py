"""Waiting for what has no event of its own."""

import asyncio
from collections.abc import Callable

SECONDS = 20.0


async def until(holds: Callable[[], bool]) -> None:
    """Return when a condition holds; fail when it takes too long."""
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.02)
