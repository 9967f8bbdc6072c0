"""Bounds in time on what a task does, for the path of every call: like `asyncio.timeout`, at a fifth of its cost.

`asyncio.timeout` makes a timer of the loop, and two coroutines, for each block (5.8 us measured; a call passed six).
Here all bounds of a worker share one timer, which is armed for the earliest of them: to begin a bound is to put it into
a set, to end it is to take it out. The timer is left as it is when a bound ends; when it fires with nothing due, it is
armed for what is the earliest by then.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol

_NEVER = float("inf")
_EARLY_SECONDS = 0.001  # uvloop's clock has milliseconds, and may fire a little before the time it was given


class Alarm(Protocol):
    """Something that is due at a time of the loop's clock."""

    at: float

    def ring(self) -> None:
        """The time has come. Must not raise."""
        ...


class Alarms:
    """The alarms of a worker, on one timer of the loop in which this is made.

    Which loop runs is asked once: each such question is a system call (on Python 3.11).
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.all: set[Alarm] = set()
        """Those that are to ring."""
        self.next = _NEVER
        """When the timer fires; who adds one that is due earlier calls `arm`."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, alarm: Alarm) -> None:
        """Have an alarm ring at its time, once; one that is there may be added again after its time was moved."""
        self.all.add(alarm)
        if alarm.at < self.next:
            self.arm(alarm.at)

    def discard(self, alarm: Alarm) -> None:
        """Let an alarm not ring, if it has not rung."""
        self.all.discard(alarm)

    def __len__(self) -> int:
        return len(self.all)

    def arm(self, at: float) -> None:
        """Have the timer fire at this time."""
        if self._timer is not None:
            self._timer.cancel()
        self.next = at
        self._timer = self.loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer, self.next = None, _NEVER
        now = self.loop.time() + _EARLY_SECONDS
        due = [alarm for alarm in self.all if alarm.at <= now]
        self.all.difference_update(due)
        for alarm in due:
            alarm.ring()
        if self.all:
            earliest = min(alarm.at for alarm in self.all)
            if earliest < self.next:
                self.arm(earliest)


class Scope:
    """A block that somebody else may end: `cut` raises TimeoutError at its end, as `asyncio.timeout` does.

    `with Scope(alarms) as scope:`; what awaits inside is cancelled.
    """

    __slots__ = ("_alarms", "_cancelling", "_task", "is_cut")

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.is_cut = False

    def __enter__(self) -> Scope:
        task = self._task = asyncio.current_task(self._alarms.loop)
        if task is None:
            raise RuntimeError("a scope is entered in a task")
        self._cancelling = task.cancelling()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        task, self._task = self._task, None
        if self.is_cut:
            self._end(task, kind, error)

    def cut(self) -> None:
        """End the block, unless it has ended or was not begun."""
        if self._task is not None and not self.is_cut:
            self.is_cut = True
            self._task.cancel()

    def _end(
        self, task: asyncio.Task[object] | None, kind: type[BaseException] | None, error: BaseException | None
    ) -> None:
        if task is not None:
            is_ours = task.uncancel() <= self._cancelling
            if is_ours and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error


class Deadline(Scope):
    """A scope that is cut when its time has come; the time may be moved meanwhile.

    It is on the path of every call four times, so that what it does is written out here.
    """

    __slots__ = ("at",)

    def __init__(self, alarms: Alarms, seconds: float) -> None:
        self._alarms = alarms
        self._task = None
        self.is_cut = False
        self.at = alarms.loop.time() + seconds

    def __enter__(self) -> Deadline:
        alarms = self._alarms
        task = self._task = asyncio.current_task(alarms.loop)
        if task is None:
            raise RuntimeError("a deadline is set for a task")
        self._cancelling = task.cancelling()
        alarms.all.add(self)
        if self.at < alarms.next:
            alarms.arm(self.at)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._alarms.all.discard(self)
        task, self._task = self._task, None
        if self.is_cut:
            self._end(task, kind, error)

    def move(self, at: float) -> None:
        """Be due at another time of the loop's clock; nothing happens once the block has ended or was cut."""
        if self._task is not None and not self.is_cut:
            self.at = at
            self._alarms.add(self)

    ring = Scope.cut
