"""Bounds in time on what a task does, for the path of every call: like `asyncio.timeout`, at a fifth of its cost.

`asyncio.timeout` makes a timer of the loop, and two coroutines, for each block (5.8 us measured; a call passed six).
Here all bounds of a worker share one timer, which is armed for the earliest of them: to begin a bound is to put it into
a set, to end it is to take it out. The timer is left as it is when a bound ends; when it fires with nothing due, it is
armed for what is the earliest by then.

A request has one `Guard`, made with it and handed down, which each layer uses in turn: for a limit of its own, or so
that somebody may cut its work. `Scope` and `Deadline` are blocks, for what is not on the path of every call.
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


class Guard:
    """What may end the work of one task from outside: a limit of time, or somebody who cuts it, each for a reason.

    A reason is an object that a layer compares by identity. Whatever comes first cancels the task; the layer whose
    reason it was finds that by `took`, and turns the CancelledError into its own error. One limit holds at a time.
    """

    __slots__ = ("_alarms", "_cancelling", "_late", "_reason", "_task", "at")

    def __init__(self, alarms: Alarms) -> None:
        """Guard the task that makes this."""
        task = asyncio.current_task(alarms.loop)
        if task is None:
            raise RuntimeError("a guard is made in a task")
        self._alarms = alarms
        self._task = task
        self._cancelling = task.cancelling()
        self._reason: object = None

    def now(self) -> float:
        """The loop's clock, without asking which loop that is."""
        return self._alarms.loop.time()

    def limit(self, seconds: float, reason: object) -> None:
        """Have the task cut for this reason after so many seconds, unless the limit is lifted before."""
        alarms = self._alarms
        self._late = reason
        self.at = at = alarms.loop.time() + seconds
        alarms.all.add(self)
        if at < alarms.next:
            alarms.arm(at)

    def move(self, at: float) -> None:
        """Let the limit that holds be up at another time of the loop's clock; one was set before."""
        self.at = at
        self._alarms.add(self)

    def ring(self) -> None:
        """The time is up."""
        self.cut(self._late)

    def cut(self, reason: object) -> None:
        """End what the task does, unless it is being ended."""
        if self._reason is None:
            self._reason = reason
            self._task.cancel()

    def took(self, reason: object) -> bool:
        """Whether a CancelledError was made here for this reason, and for no other one; asked once."""
        if self._reason is not reason:
            return False
        self._reason = None
        return self._task.uncancel() <= self._cancelling

    def lift(self) -> None:
        """The limit holds no more."""
        self._alarms.all.discard(self)


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
    """A scope that is cut when its time has come."""

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

    ring = Scope.cut
