"""The headers of one HTTP request, as pairs of bytes with names in lower case: looked up by name, and counted.

A request has a dozen headers and a call looks up ten of them, so that they are put into a table once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from gateway.errors import HeaderMismatch


class Headers:
    """Headers of which most come once; of one that was repeated `get` has the first."""

    __slots__ = ("is_repeated", "raw", "values")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        if type(raw) is not list:
            raw = list(raw)
        values = dict(raw)
        is_repeated = len(values) != len(raw)
        if is_repeated:
            values = dict(reversed(raw))
        self.raw = raw
        self.values = values
        """Values as they came, by name; the first one where a header was repeated."""
        self.is_repeated = is_repeated
        """Whether any header came more than once."""

    def get(self, name: bytes, default: str = "") -> str:
        """The value of a header."""
        value = self.values.get(name)
        return default if value is None else value.decode("latin-1")

    def raw_value(self, name: bytes) -> bytes | None:
        """The value of a header as it came, all values joined by commas where it was repeated."""
        if self.is_repeated:
            found = [value for each, value in self.raw if each == name]
            return b",".join(found) if found else None
        return self.values.get(name)

    def all(self, name: bytes) -> list[str]:
        """The values of a header that may be repeated."""
        if self.is_repeated:
            return [value.decode("latin-1") for each, value in self.raw if each == name]
        value = self.values.get(name)
        return [] if value is None else [value.decode("latin-1")]

    def check_once(self, names: Collection[bytes]) -> None:
        """Let headers pass of which none of these was repeated. Raises HeaderMismatch."""
        seen = set()
        for name, _ in self.raw:
            if name in names and name in seen:
                raise HeaderMismatch(f"The header {name.decode()} was sent more than once.")
            seen.add(name)
