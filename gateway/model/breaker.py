"""A circuit breaker as a state machine: a server that failed several times in a row is left alone for a while.

Values in, values out; times are seconds of whatever clock the caller has.
"""

from __future__ import annotations

from dataclasses import dataclass

_FIRST_PAUSE = 1.0


@dataclass
class Breaker:
    """closed (calls pass) -> open (none do) -> half-open (one tries) -> closed, or open for twice as long."""

    failures_to_open: int
    longest_pause: float
    failures: int = 0
    reason: str = ""
    _opened_until: float | None = None
    _pause: float = _FIRST_PAUSE
    _trying: bool = False

    def state(self, now: float) -> str:
        """`closed`, `open` or `half-open`."""
        if self._opened_until is None:
            return "closed"
        return "open" if now < self._opened_until else "half-open"

    def wait(self, now: float) -> float | None:
        """None if a call may pass (it then must report how it went), else the seconds until one may."""
        if self._opened_until is None:
            return None
        if now < self._opened_until:
            return self._opened_until - now
        if self._trying:
            return _FIRST_PAUSE
        self._trying = True
        return None

    def succeeded(self) -> None:
        """A call got an answer: close."""
        self.failures, self.reason = 0, ""
        self._opened_until, self._pause, self._trying = None, _FIRST_PAUSE, False

    def failed(self, now: float, reason: str) -> None:
        """A call failed (no connection, no answer in time); several in a row open the breaker."""
        self.failures += 1
        self.reason = reason
        if self._trying:
            self._pause = min(2 * self._pause, self.longest_pause)
        if self._trying or self.failures >= self.failures_to_open:
            self._opened_until = now + self._pause
        self._trying = False

    def left(self) -> None:
        """A call ended without saying anything of the server (its caller left)."""
        self._trying = False
