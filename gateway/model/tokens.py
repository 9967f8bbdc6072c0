"""How many tokens a tool costs a model: an estimate, the same for all models. Pure.

What clients send of a tool is its name, its description and its input schema, as JSON. Of such JSON a token of the
common vocabularies (o200k_base) covers some four characters of English text and of punctuation, and less than one of
other scripts. `bench` compares the estimate with real counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

_BYTES_PER_TOKEN = 4.2
_SENT = ("name", "description", "inputSchema")


def tokens_of(tool: Mapping[str, Any]) -> int:
    """The estimated tokens of one tool's definition, as clients send it."""
    data = orjson.dumps({name: tool[name] for name in _SENT if tool.get(name) is not None})
    return tokens_of_json(data)


def tokens_of_json(data: bytes) -> int:
    """The estimated tokens of a JSON text."""
    return round(len(data) / _BYTES_PER_TOKEN)
