"""How much one key may call, or one server is called: `{"calls_per_second", "burst", "concurrent", "calls_per_day"}`.

Each is optional. `burst` is how many calls may come at once after a pause (default: one second's); days are UTC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidParams

COUNTED = frozenset({"tools/call", "resources/read", "prompts/get", "completion/complete"})
"""The methods whose calls count."""

_MOST = {"burst": 1_000_000, "concurrent": 100_000, "calls_per_day": 1_000_000_000}
_MOST_PER_SECOND = 1_000_000
_LEASED_SECONDS = 0.1  # of calls that a worker takes at once
_MOST_LEASED = 1_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits; None where there is none of a kind."""

    calls_per_second: float | None = None
    burst: int | None = None
    concurrent: int | None = None
    calls_per_day: int | None = None

    @property
    def lease(self) -> int:
        """How many calls a worker takes at once at most, without asking again: a tenth of a second's, at least one.

        So many more than the limit can pass for each worker, at most.
        """
        if self.calls_per_second is not None:
            return max(1, min(_MOST_LEASED, math.ceil(self.calls_per_second * _LEASED_SECONDS)))
        return max(1, min(_MOST_LEASED, (self.calls_per_day or 0) // 1000))

    @property
    def at_once(self) -> int:
        """How many calls may come at once after a pause."""
        return self.burst or max(1, math.ceil(self.calls_per_second or 0))

    def public(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}


def read_limits(value: Any, field: str = "limits") -> Limits | None:
    """Read limits as callers send them; None for none. Raises InvalidParams, which names the place."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidParams(f"{field!r} must be an object with {', '.join(Limits.__slots__)}.", field)
    found: dict[str, Any] = {}
    for name, each in value.items():
        at = f"{field}.{name}"
        if name not in Limits.__slots__:
            known = ", ".join(Limits.__slots__)
            raise InvalidParams(f"There is no limit {name[:64]!r}; there are {known}.", field)
        if each is None:
            continue
        is_number = not isinstance(each, bool) and isinstance(each, int | float if name == "calls_per_second" else int)
        most = _MOST.get(name, _MOST_PER_SECOND)
        if not is_number or not math.isfinite(each) or not 0 < each <= most:
            what = "a number" if name == "calls_per_second" else "a whole number"
            raise InvalidParams(f"{at!r} must be {what} above 0, of at most {most}.", at)
        found[name] = each
    if "burst" in found and "calls_per_second" not in found:
        raise InvalidParams(f"'{field}.burst' says how many calls may come at once beside 'calls_per_second'.", field)
    return Limits(**found) if found else None
