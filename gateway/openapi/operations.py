"""One operation of an OpenAPI document as a tool, with the plan of its request; or the reason why it can't be one.

The document's objects are read by openapi-pydantic; schemas go their own way (`schemas`), since documents are sloppier
there than tools may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from openapi_pydantic.v3 import v3_0, v3_1
from pydantic import BaseModel, ValidationError

from gateway.openapi.document import Unresolved, followed
from gateway.openapi.plan import FORM, JSON, MULTIPART, Body, Kind, Place, Plan
from gateway.openapi.schemas import Purpose, Schemas, TakesFile, cut

VERBS = ("get", "put", "post", "delete", "patch", "head", "options", "trace")
_MAX_TITLE = 100
_MAX_DESCRIPTION = 2_000
_MAX_NAME = 100
_MAX_ARGUMENT = 64
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110, 5.6.2
_MEDIA = re.compile(r"[\x21-\x7e ]{1,100}")
_STEP_UP = re.compile(r"(^|/)(\.|%2e){1,2}(/|$)", re.IGNORECASE)
_IN_TEMPLATE = re.compile(r"\{([^{}/]+)\}")
_DEFAULT_STYLE = {"path": "simple", "query": "form", "header": "simple"}
_STYLES = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
}
_IGNORED = frozenset({"accept", "authorization", "content-type"})
"""Parameters that mean nothing in a document (OpenAPI 3.1.1, 4.8.12.1)."""
_NOT_FOR_ARGUMENTS = frozenset(
    {
        "accept-encoding", "connection", "content-encoding", "content-length", "cookie", "expect", "host",
        "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "via",
    }
)  # fmt: skip
_ANNOTATIONS: Mapping[str, Mapping[str, bool]] = {  # RFC 9110, 9.2; RFC 5789, 2
    "get": {"readOnlyHint": True},
    "put": {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True},
    "delete": {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True},
    "patch": {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False},
    "post": {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False},
}


class LeftOut(Exception):
    """An operation that can't be a tool; the text says why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as it stands in the document."""

    path: str
    verb: str
    item: Mapping[str, Any]
    raw: Any

    @property
    def place(self) -> str:
        return f"{self.verb.upper()} {self.path}"

    @property
    def id(self) -> str | None:
        found = self.raw.get("operationId") if isinstance(self.raw, dict) else None
        return found if isinstance(found, str) and found.strip() else None

    @property
    def tags(self) -> tuple[str, ...]:
        found = self.raw.get("tags") if isinstance(self.raw, dict) else None
        return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()

    @property
    def server(self) -> str:
        """The URL of a server of its own, or of its path's; empty where it has none."""
        own = first_url(self.raw.get("servers")) if isinstance(self.raw, dict) else ""
        return own or first_url(self.item.get("servers"))

    def name(self) -> str:
        """The tool's name, if no other one has it."""
        wanted = self.id or f"{self.verb}{self.path}"
        return re.sub(r"[^A-Za-z0-9_-]+", "_", wanted).strip("_")[:_MAX_NAME] or self.verb


@dataclass(frozen=True, slots=True)
class Fixed:
    """What the operator sends with every request: these are no arguments. Header names are in lower case."""

    headers: frozenset[str] = frozenset()
    query: frozenset[str] = frozenset()


class Compiler:
    """Makes tools of the operations of one document, which is of version 3.0 or 3.1."""

    def __init__(self, document: Mapping[str, Any], fixed: Fixed, bases: frozenset[str]) -> None:
        """`bases` are the URLs that operations may be below, without a slash at the end."""
        self._document = document
        self._fixed = fixed
        self._bases = bases
        self._schemas = Schemas(document)
        self._models: Any = v3_0 if str(document.get("openapi", "")).startswith("3.0") else v3_1

    def tool(self, operation: Operation, name: str) -> tuple[dict[str, Any], Plan]:
        """The tool and the plan of its request. Raises LeftOut."""
        try:
            return self._tool(operation, name)
        except Unresolved as error:
            raise LeftOut(str(error)) from None
        except TakesFile:
            raise LeftOut("it takes a file") from None

    def _tool(self, operation: Operation, name: str) -> tuple[dict[str, Any], Plan]:
        if operation.verb not in _ANNOTATIONS:
            raise LeftOut(f"{operation.verb.upper()} has no answer for a model")
        path = operation.path.partition("#")[0]  # which only tells operations at one address apart
        if not path.startswith("/") or not path.isprintable() or "\\" in path or _STEP_UP.search(path):
            raise LeftOut("its path is none that can be asked for")
        raw = operation.raw
        if not isinstance(raw, dict):
            raise LeftOut("it is no object")
        blank: dict[str, Any] = {"parameters": [], "requestBody": None, "responses": {}, "callbacks": {}, "servers": []}
        read = self._read(self._models.Operation, raw | blank, "it")
        if (url := operation.server) and url.rstrip("/") not in self._bases:
            raise LeftOut(f"it is served elsewhere ({url[:200]}): register it apart, with that `base_url`")
        arguments = _Arguments()
        self._parameters(operation, arguments)
        body = self._body(raw.get("requestBody"), arguments)
        output, schema, accept = self._output(raw.get("responses"))
        tool: dict[str, Any] = {"name": name}
        summary = (read.summary or "").strip()
        if summary:
            tool["title"] = cut(summary, _MAX_TITLE)
        tool["description"] = _described(operation, summary, read.description or "", deprecated=read.deprecated is True)
        tool["inputSchema"] = self._input(arguments)
        if schema is not None:
            tool["outputSchema"] = schema
        tool["annotations"] = {**_ANNOTATIONS[operation.verb], "openWorldHint": True}
        required = tuple(sorted(arguments.required))
        return tool, Plan(operation.verb.upper(), path, arguments.places, body, required, accept, output)

    def _read(self, model: type[BaseModel], value: Any, what: str) -> Any:
        """An object of the document. Raises LeftOut."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(step) for step in first["loc"] if isinstance(step, str))
            raise LeftOut(
                f"{what} is not as OpenAPI has it: {first['msg']}" + (f" ({where})" if where else "")
            ) from None

    # --- parameters -----------------------------------------------------------------------------------------------

    def _parameters(self, operation: Operation, arguments: _Arguments) -> None:
        in_path = set(_IN_TEMPLATE.findall(operation.path.partition("#")[0]))
        for raw in self._raw_parameters(operation):
            what = f"its parameter {str(raw.get('name'))[:100]!r}"
            blank = {**raw, "schema": {}} if "schema" in raw else raw
            read = self._read(self._models.Parameter, blank, what)
            place = str(getattr(read.param_in, "value", read.param_in))
            is_required = place == "path" or bool(read.required)
            if place == "path" and read.name not in in_path:
                continue
            if place == "header" and not _TOKEN.fullmatch(read.name):
                raise LeftOut(f"{what} has a name that no header can have")
            if reason := self._no_argument(place, read.name):
                if is_required and place == "cookie":
                    raise LeftOut(f"{what} is a cookie")
                if is_required and reason == "reserved":
                    raise LeftOut(f"{what} is a header that is not for callers to set")
                continue
            style = read.style or _DEFAULT_STYLE[place]
            if style not in _STYLES[place]:
                raise LeftOut(f"{what} has the style {style!r}, which a {place} parameter does not have")
            explode = read.explode if isinstance(read.explode, bool) and "explode" in raw else style == "form"
            content = raw.get("content")
            schema = raw.get("schema", {})
            if isinstance(content, dict) and content:
                media = next(iter(content.values()))
                schema = media.get("schema", {}) if isinstance(media, dict) else {}
            at = Place(
                place,
                read.name,
                str(style),
                explode,
                as_json=bool(content),
                reserved=place == "query" and bool(getattr(read, "allowReserved", False)),
            )
            try:
                arguments.add(read.name, schema, read.description, required=is_required, at=at)
            except TakesFile:
                raise LeftOut(f"{what} is a file") from None
            in_path.discard(read.name if place == "path" else "")
        for name in sorted(in_path):  # in the template, and nowhere else
            arguments.add(name, {"type": "string"}, None, required=True, at=Place("path", name))

    def _raw_parameters(self, operation: Operation) -> Iterable[Mapping[str, Any]]:
        """The operation's own parameters and those of its path, each once."""
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for of in (operation.item, operation.raw):
            listed = of.get("parameters")
            for each in listed if isinstance(listed, list) else ():
                raw = followed(self._document, each)
                if not isinstance(raw, dict):
                    raise LeftOut("one of its parameters is no object")
                found[str(raw.get("name")), str(raw.get("in"))] = raw
        return found.values()

    def _no_argument(self, place: str, name: str) -> str | None:
        """Why a parameter is not for callers to give; None if it is."""
        if place == "cookie":
            return "cookie"
        if place == "header" and name.lower() in self._fixed.headers | _IGNORED:
            return "fixed"
        if place == "query" and name in self._fixed.query:
            return "fixed"
        return "reserved" if place == "header" and name.lower() in _NOT_FOR_ARGUMENTS else None

    # --- the body -------------------------------------------------------------------------------------------------

    def _body(self, raw: Any, arguments: _Arguments) -> Body | None:
        raw = followed(self._document, raw)
        if raw is None:
            return None
        content = raw.get("content") if isinstance(raw, dict) else None
        if not isinstance(content, dict) or not content:
            if isinstance(raw, dict) and content == {}:
                return None
            raise LeftOut("its requestBody has no content")
        media, kind = _chosen(content)
        given = content[media]
        schema = given.get("schema", {}) if isinstance(given, dict) else {}
        blank = {**raw, "content": {media: {**given, "schema": {}} if isinstance(given, dict) else given}}
        read = self._read(self._models.RequestBody, blank, "its requestBody")
        is_required = bool(read.required)
        plain = None if kind is Kind.TEXT else self._schemas.plain_object(schema)
        is_form = kind in (Kind.FORM, Kind.MULTIPART)
        if is_form and plain is None:
            if not is_required:
                return None
            raise LeftOut(f"its body is {media} without fields")
        if plain is not None and (is_form or not arguments.takes(plain.properties)):
            fields = self._fields(plain.properties, plain.required if is_required else frozenset(), arguments, kind)
            styles = _styles(given.get("encoding") if isinstance(given, dict) else None)
            return Body(kind.value, _sent_as(media, kind), None, fields, styles)
        taken = {"type": "string"} if kind is Kind.TEXT else schema
        name = arguments.add("body", taken, read.description, required=is_required, at=None)
        return Body(kind.value, _sent_as(media, kind), name)

    def _fields(
        self, properties: Mapping[str, Any], required: frozenset[str], arguments: _Arguments, kind: Kind
    ) -> dict[str, str]:
        """The body's fields as arguments of their own, by argument the field's name."""
        found: dict[str, str] = {}
        for name, schema in properties.items():
            seen = self._schemas.raw(schema)
            if isinstance(seen, dict) and seen.get("readOnly") is True:
                continue
            if kind is Kind.MULTIPART and isinstance(seen, dict) and seen.get("format") in ("binary", "base64"):
                if name in required:
                    raise LeftOut(f"its field {name[:100]!r} is a file")
                continue
            found[arguments.add(name, schema, None, required=name in required, at=None)] = name
        return found

    # --- schemas --------------------------------------------------------------------------------------------------

    def _input(self, arguments: _Arguments) -> dict[str, Any]:
        properties, definitions = self._schemas.translated(arguments.schemas, Purpose.TAKEN)
        for name, text in arguments.descriptions.items():
            if isinstance(properties[name], dict) and text.strip():
                properties[name] = {**properties[name], "description": cut(text, Purpose.TAKEN.described)}
        found: dict[str, Any] = {"type": "object", "properties": properties}
        if arguments.required:
            found["required"] = sorted(arguments.required)
        found["additionalProperties"] = False
        return found | ({"$defs": definitions} if definitions else {})

    def _output(self, responses: Any) -> tuple[str | None, dict[str, Any] | None, str]:
        """What the API answers where all goes well: the shape, its schema, and what is asked for in `Accept`."""
        medias: dict[str, None] = {}
        schemas: list[Any] = []
        for status, each in responses.items() if isinstance(responses, dict) else ():
            if not re.fullmatch(r"2(\d\d|XX)", str(status)):
                continue
            try:
                response = followed(self._document, each)
            except Unresolved:
                response = None
            content = response.get("content") if isinstance(response, dict) else None
            content = content if isinstance(content, dict) else {}
            medias |= dict.fromkeys(content)
            json = next((media for media in content if _is_json(media)), None)
            schemas.append(content[json].get("schema") if json and isinstance(content[json], dict) else None)
        accepted = [media for media in medias if _is_json(media)] or list(medias)
        accept = ", ".join(media for media in accepted[:8] if re.fullmatch(r"[\x21-\x7e ]{1,100}", media)) or "*/*"
        if not schemas or any(each is None or each != schemas[0] for each in schemas):
            return None, None, accept
        try:
            return *self._answered(schemas[0]), accept
        except (Unresolved, TakesFile):
            return None, None, accept

    def _answered(self, schema: Any) -> tuple[str, dict[str, Any]]:
        if self._schemas.is_object(schema):
            found, definitions = self._schemas.translated({"": self._schemas.raw(schema)}, Purpose.ANSWERED)
            shape, whole = "object", {**found[""], "type": "object"}
        else:
            found, definitions = self._schemas.translated({"result": schema}, Purpose.ANSWERED)
            shape, whole = "result", {"type": "object", "properties": found, "required": ["result"]}
        return shape, whole | ({"$defs": definitions} if definitions else {})


class _Arguments:
    """The arguments of one tool: raw schemas by name, and where each goes."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        self.descriptions: dict[str, str] = {}
        self.places: dict[str, Place] = {}
        self.required: set[str] = set()

    def add(self, name: str, schema: Any, description: str | None, *, required: bool, at: Place | None) -> str:
        """Add one under its own name, or the nearest that is free and that models can write."""
        wanted = _argument(name)
        if wanted in self.schemas and at is not None:
            wanted = f"{wanted}_{at.place}"[-_MAX_ARGUMENT:]
        found, number = wanted, 2
        while found in self.schemas:
            found, number = f"{wanted[: _MAX_ARGUMENT - 4]}_{number}", number + 1
        self.schemas[found] = schema
        if description:
            self.descriptions[found] = description
        if at is not None:
            self.places[found] = at
        if required:
            self.required.add(found)
        return found

    def takes(self, names: Iterable[str]) -> bool:
        """Whether one of these names is an argument already."""
        return any(_argument(name) in self.schemas for name in names)


def _argument(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_")[:_MAX_ARGUMENT] or "value"


def _described(operation: Operation, summary: str, description: str, *, deprecated: bool) -> str:
    """What a model reads of a tool: all that the document says of it, and its address at the end."""
    texts = [summary if summary != description.strip() else "", cut(description, _MAX_DESCRIPTION), operation.place]
    return ("Deprecated. " if deprecated else "") + "\n\n".join(text for text in texts if text)


def _chosen(content: Mapping[str, Any]) -> tuple[str, Kind]:
    """The media type that a body is sent as, and what is written as it. Raises LeftOut."""
    for kind, fits in (
        (Kind.JSON, _is_json),
        (Kind.FORM, _is_form),
        (Kind.MULTIPART, _is_multipart),
        (Kind.TEXT, _is_text),
    ):
        for media in content:
            if _MEDIA.fullmatch(media) and fits(media):
                return media, kind
    raise LeftOut(f"its body is of a kind that no argument can hold ({', '.join(list(content)[:3])[:200]})")


def _is_json(media: str) -> bool:
    kind = media.partition(";")[0].strip().lower()
    return kind in (JSON, "*/*", "application/*", "text/json") or kind.endswith("+json")


def _is_form(media: str) -> bool:
    return media.partition(";")[0].strip().lower() == FORM


def _is_multipart(media: str) -> bool:
    return media.partition(";")[0].strip().lower() == MULTIPART


def _sent_as(media: str, kind: Kind) -> str:
    """The Content-Type that is sent, but for the boundary of a multipart one."""
    if kind in (Kind.FORM, Kind.MULTIPART):
        return FORM if kind is Kind.FORM else MULTIPART
    return JSON if "*" in media else media.strip()


def _is_text(media: str) -> bool:
    kind = media.partition(";")[0].strip().lower()
    return kind.startswith("text/") or kind == "application/xml" or kind.endswith("+xml")


def _styles(encoding: Any) -> dict[str, tuple[str, bool]]:
    """How a form's fields are written, where the document says it."""
    found = {}
    for name, each in encoding.items() if isinstance(encoding, dict) else ():
        if isinstance(each, dict) and ("style" in each or "explode" in each):
            style = str(each.get("style", "form"))
            found[name] = (style, bool(each.get("explode", style == "form")))
    return found


def first_url(servers: Any) -> str:
    """The URL of the first server, with the defaults of its variables; empty where there is none."""
    first = servers[0] if isinstance(servers, list) and servers else None
    if not isinstance(first, dict) or not isinstance(url := first.get("url"), str):
        return ""
    variables = first.get("variables")
    for name, each in variables.items() if isinstance(variables, dict) else ():
        if isinstance(each, dict):
            url = url.replace("{" + name + "}", str(each.get("default", "")))
    return f"https:{url}" if url.startswith("//") else url
