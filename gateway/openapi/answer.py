"""What an API answered as a tool's result: JSON also as `structuredContent`, pictures as such, errors as `isError`.

An answer that is not as the document has it is an error to callers that check it, and would be one without its text to
them: so it is said, with the whole answer.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import orjson

from gateway.model.redaction import redact_url
from gateway.model.schema_check import SchemaCheck
from gateway.openapi.plan import Plan

_BYTES_PER_VALUE = 4
_CHARSETS = frozenset(
    {
        "utf-8", "us-ascii", "iso-8859-1", "iso-8859-2", "iso-8859-15", "windows-1250", "windows-1251", "windows-1252",
        "utf-16", "utf-16le", "utf-16be", "shift_jis", "euc-jp", "euc-kr", "gb2312", "gbk", "gb18030", "big5", "koi8-r",
    }
)  # fmt: skip
"""Charsets that are read as such: not each codec of Python's does it in a bounded time."""


def result_of(
    plan: Plan, uri: str, status: int, media: str, location: str | None, data: bytes, check: SchemaCheck | None
) -> dict[str, Any]:
    """The tool's result. `uri` names what is neither text nor a picture; `check` holds what `outputSchema` says."""
    kind = media.partition(";")[0].strip().lower()
    if not 200 <= status < 300:
        text = f"HTTP {status}"
        if location is not None and 300 <= status < 400:
            text += f" to {redact_url(location)[:500]}: redirects are not followed"
        body = _decoded(data, media)
        return _text(f"{text}: {body}" if body else f"{text}.") | {"isError": True}
    is_json = kind == "application/json" or kind.endswith("+json") or kind == "text/json"
    if not data:
        value, text = None, f"HTTP {status}, without content."
    elif is_json or plan.output is not None:
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return (
                _not_as_documented(status, "it is not JSON", _decoded(data, media))
                if is_json
                else _other(plan, uri, status, kind, media, data)
            )
        text = _decoded(data, "utf-8")
    else:
        return _other(plan, uri, status, kind, media, data)
    structured = {"result": value} if plan.output == "result" else value
    try:
        orjson.dumps(structured)
    except orjson.JSONEncodeError:  # it writes 254 levels, and reads more
        what = "it is nested too deeply"
        return _not_as_documented(status, what, text) if plan.output is not None else _text(text)
    if plan.output is not None and check is not None and not check.is_too_much(len(data) // _BYTES_PER_VALUE):
        where, what = next(check.errors(structured), ("", ""))
        if what:
            return _not_as_documented(status, f"{where or 'as a whole'}: {what}", text)
    return _text(text) | ({"structuredContent": structured} if isinstance(structured, dict) else {})


def _other(plan: Plan, uri: str, status: int, kind: str, media: str, data: bytes) -> dict[str, Any]:
    """An answer that is no JSON."""
    if plan.output is not None:
        return _not_as_documented(status, f"it is {kind or 'of no media type'}", _decoded(data, media))
    if kind.startswith(("image/", "audio/")):
        block: dict[str, Any] = {"type": kind.partition("/")[0], "data": b64encode(data).decode(), "mimeType": kind}
    elif (text := _read(data, media)) is not None:
        return _text(text)
    else:
        held = {"uri": uri, "mimeType": kind or "application/octet-stream", "blob": b64encode(data).decode()}
        block = {"type": "resource", "resource": held}
    return {"content": [block]}


def _not_as_documented(status: int, what: str, body: str) -> dict[str, Any]:
    said = f"The request was carried out (HTTP {status}), but the answer is not as the API's document has it ({what}): "
    return _text(said + body) | {"isError": True}


def _read(data: bytes, media: str) -> str | None:
    """Bytes as a text; None where they are none."""
    name = media.lower().partition("charset=")[2].partition(";")[0].strip('" ')
    try:
        text = data.decode(name if name in _CHARSETS else "utf-8")
    except ValueError:
        return None
    return None if "\0" in text else text


def _decoded(data: bytes, media: str) -> str:
    text = _read(data, media)
    return data.decode(errors="replace") if text is None else text


def _text(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}
