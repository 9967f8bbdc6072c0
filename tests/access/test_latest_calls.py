"""The newest calls, for those who watch: read once however many ask, and nobody's that are not theirs."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.access.audit import Filter
from gateway.access.latest_calls import MOST, LatestCalls
from gateway.errors import StoreUnavailable

pytestmark = pytest.mark.anyio


class _Audit:
    """Counts what is read of it."""

    def __init__(self) -> None:
        self.asked: list[Filter] = []
        self.is_away = False

    async def page(self, wanted: Filter, after: Any, limit: int) -> list[tuple[tuple[datetime, int], dict[str, Any]]]:
        assert (after, limit) == (None, MOST)
        self.asked.append(wanted)
        await asyncio.sleep(0.02)
        if self.is_away:
            raise StoreUnavailable()
        return [((datetime.now(UTC), len(self.asked)), {"key_id": wanted.key_id})]


async def test_many_who_watch_cost_one_reading() -> None:
    audit = _Audit()
    latest = LatestCalls(audit)  # type: ignore[arg-type]
    found = await asyncio.gather(*(latest.of(None) for _ in range(50)), *(latest.of("k") for _ in range(50)))
    assert [each.key_id for each in audit.asked] == [None, "k"]
    assert [rows[0][1]["key_id"] for rows in found] == [None] * 50 + ["k"] * 50
    await asyncio.sleep(1)
    assert (await latest.of(None))[0][0] == 3


async def test_who_leaves_takes_nothing_from_the_others() -> None:
    audit = _Audit()
    latest = LatestCalls(audit)  # type: ignore[arg-type]
    first, second = asyncio.create_task(latest.of(None)), asyncio.create_task(latest.of(None))
    await asyncio.sleep(0)
    first.cancel()
    assert len(await second) == 1
    assert len(audit.asked) == 1


async def test_there_are_none_while_the_database_is_away() -> None:
    audit = _Audit()
    audit.is_away = True
    assert await LatestCalls(audit).of(None) == []  # type: ignore[arg-type]
