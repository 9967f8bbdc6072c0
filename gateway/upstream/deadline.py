"""How long one call may take, in seconds: its usual time, extended by progress, and a cap."""

from __future__ import annotations

import asyncio

from gateway.deadlines import Deadline


class CallDeadline:
    """A call's time: progress extends it, and while a client is asked only the overall cap holds."""

    def __init__(self, deadline: Deadline, seconds: float, cap_seconds: float) -> None:
        self._deadline = deadline
        self._seconds = seconds
        self._cap = _now() + max(seconds, cap_seconds)
        self._waiting = 0

    def extend(self) -> None:
        """Something came: the server has its usual time again."""
        at = min(_now() + self._seconds, self._cap)
        self._deadline.move(max(self._deadline.at, at))

    def wait_for_client(self) -> None:
        """The client was asked, a human perhaps."""
        self._waiting += 1
        self._deadline.move(self._cap)

    def client_answered(self) -> None:
        """From the last answer on, the server has its usual time again."""
        self._waiting -= 1
        if not self._waiting:
            self._deadline.move(min(_now() + self._seconds, self._cap))


def _now() -> float:
    return asyncio.get_running_loop().time()
