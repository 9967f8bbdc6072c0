"""How a reference to a secret is written in a text: `${…}`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

ANY = re.compile(r"\$\{([^{}]*)\}")


def references_in(value: Any) -> Iterator[str]:
    """The references in a JSON value, each the text between the braces."""
    if isinstance(value, str):
        yield from (found[1] for found in ANY.finditer(value))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from references_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from references_in(each)
