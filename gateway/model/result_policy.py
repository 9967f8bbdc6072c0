"""What comes of a tool's result that is large, or of which only a part is wanted. Pure.

A policy stands in a tool's override or on a toolset: `select` (JMESPath) takes a part of the result's data; of what is
left more than `max_bytes` is an error, or cut (`truncate`), or kept for a while while a preview is sent (`spill`).

A result's data is its `structuredContent`, else the JSON that its one text holds, else its text, else all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.errors import InvalidParams
from gateway.model.selection import check_expression, selected

ERROR, TRUNCATE, SPILL = OVERFLOWS = ("error", "truncate", "spill")
_MOST_BYTES = 64 << 20
_LEAST_BYTES = 256
PREVIEW = 2_048  # bytes
_SHAPE_DEPTH, _SHAPE_FIELDS, _SHAPE_LETTERS = 4, 12, 700


@dataclass(frozen=True, slots=True)
class ResultPolicy:
    """How a tool's results are made to fit; None for no bound, or no selection."""

    max_bytes: int | None = None
    select: str | None = None
    overflow: str = ERROR

    @property
    def changes_shape(self) -> bool:
        """Whether results may be of another shape than the tool's `outputSchema` says."""
        return self.select is not None or (self.max_bytes is not None and self.overflow != ERROR)


def read_policy(value: Any, at: str) -> dict[str, Any]:
    """Check a policy as somebody sends it. Raises InvalidParams."""
    if not isinstance(value, Mapping):
        raise InvalidParams(f"'{at}' must be an object.", at)
    for name in value:
        if name not in ("max_bytes", "select", "overflow"):
            known = "max_bytes, select, overflow"
            raise InvalidParams(f"There is no field {name[:64]!r} for results; they take {known}.", f"{at}.{name}")
    read = {name: each for name, each in value.items() if each is not None}
    most = read.get("max_bytes", _LEAST_BYTES)
    if isinstance(most, bool) or not isinstance(most, int) or not _LEAST_BYTES <= most <= _MOST_BYTES:
        raise InvalidParams(
            f"'{at}.max_bytes' must be a number from {_LEAST_BYTES} to {_MOST_BYTES}.", f"{at}.max_bytes"
        )
    if "select" in read:
        check_expression(read["select"], f"{at}.select")
    if read.get("overflow", ERROR) not in OVERFLOWS:
        raise InvalidParams(f"'{at}.overflow' must be one of {', '.join(OVERFLOWS)}.", f"{at}.overflow")
    if "overflow" in read and "max_bytes" not in read:
        raise InvalidParams(f"'{at}.overflow' says what happens beyond 'max_bytes': give that, too.", f"{at}.max_bytes")
    return read


def policy_of(override: Mapping[str, Any]) -> ResultPolicy | None:
    """The policy in a tool's override."""
    found = override.get("results")
    return ResultPolicy(**found) if found else None


def data_of(result: Mapping[str, Any]) -> Any:
    """A result's data."""
    if (structured := result.get("structuredContent")) is not None:
        return structured
    content = result.get("content")
    if not isinstance(content, list) or not content or not all(_is_text(block) for block in content):
        return result
    text = "\n".join(block["text"] for block in content)
    if len(content) == 1 and text[:1] in ("{", "["):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
    return text


def with_selected(result: Mapping[str, Any], select: str) -> dict[str, Any]:
    """The result with what an expression selects of its data. Raises InvalidParams."""
    return with_data(selected(select, data_of(result)))


def with_data(data: Any) -> dict[str, Any]:
    """A result that has this data."""
    text = data if isinstance(data, str) else orjson.dumps(data).decode()
    made: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    return made | {"structuredContent": data} if isinstance(data, dict) else made


def too_large(size: int, most: int) -> dict[str, Any]:
    """What a caller gets in place of a result that is too large."""
    text = f"The result has {size:,} bytes, and this tool's may have {most:,} here: ask for less."
    return {"content": [{"type": "text", "text": text}], "isError": True}


def truncated(result: Mapping[str, Any], size: int, most: int) -> dict[str, Any]:
    """The beginning of a result's data as text."""
    text = _text(data_of(result))
    note = f"\n… (cut: the result has {size:,} bytes, and this tool's may have {most:,} here)"
    return {"content": [{"type": "text", "text": _cut(text, max(most - 2 * len(note), 0)) + note}]}


def preview(data: Any, size: int, ref: str, reader: str, seconds: int) -> dict[str, Any]:
    """What a caller gets in place of a result that is kept: what it looks like, its beginning, and how to read on."""
    text = (
        f"The result has {size:,} bytes and is kept for {seconds // 60} minutes. Read it with "
        f'{reader}(ref="{ref}"): "select" takes a JMESPath expression, "offset" and "limit" a part.\n\n'
        f"Shape: {shape(data)}\n\nBeginning:\n{_cut(_text(data), PREVIEW)}"
    )
    kept = {"ref": ref, "bytes": size, "seconds": seconds}
    return {"content": [{"type": "text", "text": text}], "_meta": {"io.mcp-gateway/result": kept}}


def shape(value: Any) -> str:
    """A value's shape in a line: `{"items": [1000 x {"id": number, …}]}`."""
    found = _shape(value, _SHAPE_DEPTH)
    return found if len(found) <= _SHAPE_LETTERS else f"{found[: _SHAPE_LETTERS - 1]}…"


def _shape(value: Any, depth: int) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text" if len(value) < PREVIEW else f"text of {len(value):,} characters"
        case None:
            return "null"
        case list():
            if not value:
                return "[]"
            return f"[{len(value):,} x {_shape(value[0], depth - 1) if depth else '…'}]"
        case dict():
            if not depth:
                return "{…}"
            fields = [f"{orjson.dumps(str(name)[:60]).decode()}: {_shape(each, depth - 1)}" for name, each in
                      list(value.items())[:_SHAPE_FIELDS]]  # fmt: skip
            more = f", … {len(value) - _SHAPE_FIELDS} more" if len(value) > _SHAPE_FIELDS else ""
            return "{" + ", ".join(fields) + more + "}"
    return "…"


def _text(data: Any) -> str:
    return data if isinstance(data, str) else orjson.dumps(data).decode()


def _cut(text: str, most: int) -> str:
    """A text's beginning of at most so many bytes, whole characters."""
    return text.encode()[:most].decode(errors="ignore")


def _is_text(block: object) -> bool:
    return isinstance(block, Mapping) and block.get("type") == "text" and isinstance(block.get("text"), str)
