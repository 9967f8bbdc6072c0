"""A tool's arguments as the HTTP request of its operation: path, query, headers and body as the document wants them.

Source: OpenAPI 3.1.1, 4.8.12 (styles) and 4.8.14 to 4.8.15 (bodies); RFC 3986 for what is encoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit
from uuid import uuid4

import orjson

from gateway.openapi.plan import FORM, MULTIPART, Body, Kind, Place, Plan

_RESERVED = ":/?#[]@!$&'()*+,;="
_HEADER_VALUE = re.compile(r"[\x21-\x7e\x80-\xff]([\x20-\x7e\x80-\xff\t]*[\x21-\x7e\x80-\xff])?")
_STEP_UP = re.compile(r"(^|/)(\.|%2e){1,2}(/|$)", re.IGNORECASE)
_MAX_URL = 32_000
_SEPARATORS = {"spaceDelimited": "%20", "pipeDelimited": "%7C"}


class BadArguments(Exception):
    """Arguments of which no request can be made; the text says which, and what to do."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request, as it goes out."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None


def request_of(base_url: str, plan: Plan, arguments: Mapping[str, Any]) -> ApiRequest:
    """Make the request of a call. Raises BadArguments."""
    body = plan.body
    fields = body.fields if body is not None else {}
    for name in arguments:
        if name not in plan.places and name not in fields and (body is None or name != body.argument):
            raise BadArguments(f"There is no argument {name[:100]!r}.")
    for name in plan.required:
        if name not in arguments:
            raise BadArguments(f"The argument {name!r} is required.")
    own = [each for each, _ in parse_qsl(urlsplit(base_url).query, keep_blank_values=True)]
    path, headers = plan.path, {"accept": plan.accept}
    query: list[str] = []
    for name, place in plan.places.items():
        if name not in arguments or (arguments[name] is None and place.place != "path"):
            continue
        value = arguments[name]
        if place.place == "path":
            path = path.replace("{" + place.name + "}", _in_path(name, place, value))
        elif place.place == "query":
            if isinstance(value, dict) and place.explode and place.style == "form":
                _check_names(name, value, {*own, *(each.name for each in plan.places.values())} - {place.name})
            query += _in_query(place, value)
        else:
            headers[place.name.lower()] = _in_header(name, place, value)
    content, kind = (None, None) if body is None else _body(plan.method, body, arguments)
    if kind is not None:
        headers["content-type"] = kind
    url = _url(base_url, path, query)
    if len(url) > _MAX_URL:
        raise BadArguments(f"The arguments make an address of {len(url)} characters; at most {_MAX_URL} are sent.")
    return ApiRequest(plan.method, url, headers, content)


def _check_names(name: str, value: Mapping[str, Any], others: set[str]) -> None:
    """Refuse an object whose members would be other parameters of the query. Raises BadArguments."""
    for each in value:
        if each in others:
            raise BadArguments(f"The argument {name!r} has a member {each[:100]!r}, which is another parameter.")


def _url(base_url: str, path: str, query: list[str]) -> str:
    """The base URL with a path below its own, and a query after its own. Raises BadArguments."""
    parts = urlsplit(base_url)
    path, _, own = path.partition("?")
    if _STEP_UP.search(path):
        raise BadArguments("The arguments make an address that leads elsewhere.")
    joined = "&".join(each for each in (parts.query, own, *query) if each)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + path, joined, ""))


def _in_path(name: str, place: Place, value: Any) -> str:
    """A value in a path's segment, which it can't leave. Raises BadArguments."""
    if place.as_json:
        text = quote(_json(value), safe="")
    elif place.style == "label":
        text = "." + ("." if place.explode else ",").join(_pieces(value, explode=place.explode))
    elif place.style == "matrix":
        text = _matrix(place, value)
    else:
        text = ",".join(_pieces(value, explode=place.explode))
    if text in ("", ".", ".."):
        raise BadArguments(f"The argument {name!r} stands in the address: it can't be {text!r}.")
    return text


def _matrix(place: Place, value: Any) -> str:
    if isinstance(value, list) and place.explode:
        return "".join(f";{quote(place.name, safe='')}={each}" for each in _pieces(value, explode=True))
    if isinstance(value, dict) and place.explode:
        return "".join(f";{each}" for each in _pieces(value, explode=True))
    return f";{quote(place.name, safe='')}={','.join(_pieces(value, explode=False))}"


def _in_query(place: Place, value: Any) -> Iterator[str]:
    """The parameters in the query that a value makes."""
    name, safe = quote(place.name, safe="[]"), _RESERVED.replace("#", "").replace("&", "") if place.reserved else ""
    if place.as_json:
        yield f"{name}={quote(_json(value), safe=safe)}"
    elif isinstance(value, dict):
        yield from _object_in_query(place, name, value, safe)
    elif isinstance(value, list):
        texts = [quote(_text(each), safe=safe) for each in value]
        if place.explode:
            yield from (f"{name}={text}" for text in texts)
        elif texts:
            yield f"{name}={_SEPARATORS.get(place.style, ',').join(texts)}"
    else:
        yield f"{name}={quote(_text(value), safe=safe)}"


def _object_in_query(place: Place, name: str, value: Mapping[str, Any], safe: str) -> Iterator[str]:
    if place.style == "deepObject":
        yield from (f"{quote(key, safe='[]')}={quote(text, safe=safe)}" for key, text in deep(place.name, value))
    elif place.explode:
        yield from (f"{quote(key, safe='')}={quote(_text(each), safe=safe)}" for key, each in value.items())
    elif value:
        texts = [quote(_text(each), safe=safe) for pair in value.items() for each in pair]
        yield f"{name}={_SEPARATORS.get(place.style, ',').join(texts)}"


def deep(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """An object's values with their names in brackets: `a[b]=1`."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from deep(f"{name}[{key}]", each)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from deep(f"{name}[{number}]", each)
    else:
        yield name, _text(value)


def _in_header(name: str, place: Place, value: Any) -> str:
    """A header's value. Raises BadArguments."""
    if place.as_json:
        text = _json(value)
    elif isinstance(value, dict):
        pairs = [(key, _text(each)) for key, each in value.items()]
        text = ",".join(f"{key}={each}" if place.explode else f"{key},{each}" for key, each in pairs)
    else:
        text = ",".join(map(_text, value if isinstance(value, list) else [value]))
    if not _HEADER_VALUE.fullmatch(text) or len(text) > 8192:
        raise BadArguments(f"The argument {name!r} is a header: it can't be empty or hold line breaks or controls.")
    return text


def _body(method: str, body: Body, arguments: Mapping[str, Any]) -> tuple[bytes | None, str | None]:
    """The bytes of the body and their media type. Where no field is given, an API that takes JSON gets `{}`, unless the
    method has no body by itself. Raises BadArguments."""
    if body.argument is not None:
        if body.argument not in arguments:
            return None, None
        value = arguments[body.argument]
        return (_text(value).encode() if body.kind == Kind.TEXT else orjson.dumps(value)), body.media
    given = {field: arguments[name] for name, field in body.fields.items() if name in arguments}
    if not given:
        is_sent = body.kind == Kind.JSON and method not in ("GET", "DELETE")
        return (b"{}", body.media) if is_sent else (None, None)
    if body.kind == Kind.FORM:
        pairs = _fields(body, given)
        return "&".join(f"{quote(name, safe='[]')}={quote(text, safe='')}" for name, text in pairs).encode(), FORM
    if body.kind == Kind.MULTIPART:
        return _multipart(_fields(body, given))
    return orjson.dumps(given), body.media


def _fields(body: Body, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields of a form; a field that holds more is JSON, unless the document says otherwise."""
    for name, value in given.items():
        style, explode = body.styles.get(name, ("form", True))
        if isinstance(value, list) and style != "deepObject":
            texts = [_text(each) for each in value]
            yield from ((name, text) for text in texts) if explode else iter([(name, ",".join(texts))])
        elif style == "deepObject" and isinstance(value, dict | list):
            yield from deep(name, value)
        else:
            yield name, _text(value)


def _multipart(fields: Iterable[tuple[str, str]]) -> tuple[bytes, str]:
    """Fields as RFC 7578 has them."""
    boundary = uuid4().hex
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="{_quoted(name)}"\r\n\r\n{text}\r\n'
        for name, text in fields
    ]
    return ("".join(parts) + f"--{boundary}--\r\n").encode(), f"{MULTIPART}; boundary={boundary}"


def _quoted(name: str) -> str:
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _pieces(value: Any, *, explode: bool) -> list[str]:
    """A value's texts, encoded for a path: of an object its names and values."""
    if isinstance(value, list):
        return [quote(_text(each), safe="") for each in value]
    if isinstance(value, dict):
        pairs = [(quote(key, safe=""), quote(_text(each), safe="")) for key, each in value.items()]
        return [f"{key}={text}" if explode else f"{key},{text}" for key, text in pairs]
    return [quote(_text(value), safe="")]


def _text(value: Any) -> str:
    """A value as it stands outside of JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else _json(value)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
