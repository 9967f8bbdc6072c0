"""An OpenAPI document that was sent with a registration: stored apart, and known by its mark."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

MAX_BYTES = 5 << 20
"""Of a document."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document's mark, and (only where it was just sent) its text."""

    sha256: str
    size: int
    data: bytes | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, data: bytes) -> Document:
        return cls(hashlib.sha256(data).hexdigest(), len(data), data)

    def public(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "bytes": self.size}
