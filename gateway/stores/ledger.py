"""How many bytes somebody made others keep for a while. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

_PARTS = 30  # of the time, in which bytes are counted together


@dataclass(slots=True)
class _Account:
    total: int = 0
    parts: deque[tuple[float, int]] = field(default_factory=deque)  # until when, and how many bytes


class Ledger:
    """Bytes per account, each counted for `seconds`."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def held(self, name: str) -> int:
        """The bytes that an account is charged with now."""
        account = self._accounts.get(name)
        if account is None:
            return 0
        now = self._clock()
        while account.parts and account.parts[0][0] <= now:
            account.total -= account.parts.popleft()[1]
        if not account.parts:
            del self._accounts[name]
        return account.total

    def charge(self, name: str, size: int) -> None:
        """Charge an account with bytes."""
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account()
        until = self._clock() + self._seconds
        account.total += size
        if account.parts and until - account.parts[-1][0] < self._seconds / _PARTS:
            last, counted = account.parts[-1]
            account.parts[-1] = last, counted + size
        else:
            account.parts.append((until, size))
