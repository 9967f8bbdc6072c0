"""How long one call may take, in seconds: its usual time, extended by progress, and a cap."""

from __future__ import annotations

from gateway.deadlines import Guard


class CallDeadline:
    """The limit of a call's guard: progress extends it, and while a client is asked only the overall cap holds."""

    def __init__(self, guard: Guard, seconds: float, cap_seconds: float) -> None:
        self._guard = guard
        self._seconds = seconds
        self._cap = guard.now() + max(seconds, cap_seconds)
        self._waiting = 0
        self._is_over = False

    def extend(self) -> None:
        """Something came: the server has its usual time again."""
        at = min(self._guard.now() + self._seconds, self._cap)
        self._guard.move(max(self._guard.at, at))

    def wait_for_client(self) -> None:
        """The client was asked, a human perhaps."""
        self._waiting += 1
        self._guard.move(self._cap)

    def client_answered(self) -> None:
        """From the last answer on, the server has its usual time again."""
        self._waiting -= 1
        if not self._waiting and not self._is_over:
            self._guard.move(min(self._guard.now() + self._seconds, self._cap))

    def end(self) -> None:
        """The call is over; an answer of the client that comes later moves nothing."""
        self._is_over = True
