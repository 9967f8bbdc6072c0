"""Bounds in time: what is cut, what is not, and that all share one timer."""

import asyncio

import pytest

from gateway.deadlines import Alarms, Deadline, Guard, Scope

pytestmark = pytest.mark.anyio


@pytest.fixture
async def alarms() -> Alarms:
    return Alarms()


async def test_what_takes_too_long_is_cut_and_nothing_is_left(alarms: Alarms) -> None:
    with pytest.raises(TimeoutError), Deadline(alarms, 0.01):
        await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert len(alarms) == 0


async def test_what_ends_in_time_is_not(alarms: Alarms) -> None:
    with Deadline(alarms, 0.01):
        await asyncio.sleep(0)
    await asyncio.sleep(0.03)
    assert len(alarms) == 0


async def test_the_inner_of_two_is_cut_alone(alarms: Alarms) -> None:
    with Deadline(alarms, 60) as outer:
        with pytest.raises(TimeoutError), Deadline(alarms, 0.01):
            await asyncio.sleep(60)
        await asyncio.sleep(0)
    assert not outer.is_cut


async def test_the_outer_of_two_cuts_both(alarms: Alarms) -> None:
    seen: list[type[BaseException]] = []

    async def inner() -> None:
        try:
            with Deadline(alarms, 60):
                await asyncio.sleep(60)
        except BaseException as error:
            seen.append(type(error))
            raise

    with pytest.raises(TimeoutError), Deadline(alarms, 0.01):
        await inner()
    assert seen == [asyncio.CancelledError]


async def test_an_earlier_one_that_comes_later_rings_first(alarms: Alarms) -> None:
    ended: list[str] = []

    async def wait(name: str, seconds: float) -> None:
        try:
            with Deadline(alarms, seconds):
                await asyncio.sleep(60)
        except TimeoutError:
            ended.append(name)

    await asyncio.gather(wait("third", 0.09), wait("first", 0.03), wait("second", 0.06))
    assert ended == ["first", "second", "third"]


async def test_a_guard_says_whose_reason_it_was(alarms: Alarms) -> None:
    guard, late, unwanted = Guard(alarms), object(), object()
    task = asyncio.current_task()
    assert task is not None
    for reason in (late, unwanted):
        guard.limit(0.01 if reason is late else 60, late)
        if reason is unwanted:
            alarms.loop.call_later(0.01, guard.cut, unwanted)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(60)
        assert not guard.took(unwanted if reason is late else late)
        assert guard.took(reason)
        assert not guard.took(reason), "it is asked once"
        guard.lift()
    assert task.cancelling() == 0
    assert len(alarms) == 0


async def test_a_guard_is_cut_once_and_a_limit_that_was_lifted_cuts_nothing(alarms: Alarms) -> None:
    guard, late = Guard(alarms), object()
    guard.limit(0.01, late)
    guard.lift()
    await asyncio.sleep(0.03)
    alarms.loop.call_soon(guard.cut, late)
    alarms.loop.call_soon(guard.cut, object())
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(60)
    assert guard.took(late)
    await asyncio.sleep(0)


async def test_a_cancellation_from_outside_is_never_a_guards(alarms: Alarms) -> None:
    took: list[bool] = []

    async def work() -> None:
        guard, late = Guard(alarms), object()
        guard.limit(60, late)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            guard.cut(late)  # at the same moment
            took.append(guard.took(late))
            guard.lift()
            raise

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert took == [False]
    assert len(alarms) == 0


async def test_a_limit_may_be_moved_later_and_earlier(alarms: Alarms) -> None:
    loop, late = asyncio.get_running_loop(), object()
    guard = Guard(alarms)
    guard.limit(0.02, late)
    guard.move(loop.time() + 60)
    await asyncio.sleep(0.05)
    guard.move(loop.time() + 0.01)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(60)
    assert guard.took(late)


async def test_a_cancellation_from_outside_stays_one(alarms: Alarms) -> None:
    async def work() -> None:
        with Deadline(alarms, 60):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_scope_is_cut_by_somebody_else_once(alarms: Alarms) -> None:
    scope = Scope(alarms)
    asyncio.get_running_loop().call_soon(scope.cut)
    asyncio.get_running_loop().call_soon(scope.cut)
    with pytest.raises(TimeoutError), scope:
        await asyncio.sleep(60)
    scope.cut()  # it has ended
    await asyncio.sleep(0)


async def test_a_thousand_deadlines_are_one_timer(alarms: Alarms, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    loop = asyncio.get_running_loop()
    original = loop.call_at

    def counted(*arguments: object, **named: object) -> asyncio.TimerHandle:
        nonlocal made
        made += 1
        return original(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_at", counted)
    for _ in range(1000):
        with Deadline(alarms, 60):
            pass
    assert made == 1
