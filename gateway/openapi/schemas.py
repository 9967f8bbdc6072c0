"""The schemas of an OpenAPI document as MCP's tools have them: JSON Schema 2020-12, whole in themselves.

3.0 has a dialect of its own (`nullable`, exclusive bounds that are true or false), and documents hold much that is no
JSON Schema at all: what is not understood is left out, which permits more and forbids nothing. What a schema refers to
comes with it, as `$defs`, the nearest first; where that gets too much the farthest are only named.

What an API takes is translated as it stands. What it answers is loosened: only the types are kept, each may be null and
anything may be missing, since a schema that is narrower than the answers would make an error of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from gateway.openapi.document import Unresolved, followed, target

_MAX_DEPTH = 40
_MAX_NAME = 64
_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_SCHEMAS_BY_NAME = ("properties", "patternProperties")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")
_BINARY = frozenset({"binary", "file"})


class Purpose(Enum):
    """What a schema is for, with how many characters its descriptions have, and how many bytes its `$defs`, at most."""

    TAKEN = (1_000, 32 << 10)
    ANSWERED = (200, 12 << 10)

    @property
    def described(self) -> int:
        return self.value[0]

    @property
    def room(self) -> int:
        return self.value[1]


class TakesFile(Exception):
    """A schema of a file's bytes, which no tool's arguments hold."""


@dataclass(frozen=True, slots=True)
class _Definition:
    """What one reference points at, translated, with the references in it."""

    schema: Any
    references: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class PlainObject:
    """An object whose properties can stand beside others': raw schemas, by name."""

    properties: Mapping[str, Any]
    required: frozenset[str]


class Schemas:
    """The translator of one document's schemas."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._names: dict[str, str] = {}
        self._taken: set[str] = set()
        self._definitions: dict[tuple[str, Purpose], _Definition] = {}

    def translated(self, schemas: Mapping[str, Any], purpose: Purpose) -> tuple[dict[str, Any], dict[str, Any]]:
        """Schemas by name, translated, and the `$defs` that they need. Raises Unresolved or TakesFile."""
        references: dict[str, None] = {}
        found = {name: self._schema(each, purpose, references, 0) for name, each in schemas.items()}
        return found, self._closure(references, purpose)

    def raw(self, schema: Any) -> Any:
        """A schema behind its references. Raises Unresolved."""
        return followed(self._document, schema)

    def plain_object(self, schema: Any, depth: int = 0) -> PlainObject | None:
        """What an object's properties are, where nothing else is said of it. Raises Unresolved."""
        schema = self.raw(schema)
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return None
        if any(name in schema for name in ("anyOf", "oneOf", "not", "if", "patternProperties")):
            return None
        if schema.get("type", "object") not in ("object", ["object"]) or schema.get("additionalProperties"):
            return None
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            return None
        required = _texts(schema.get("required"))
        for each in _list(schema.get("allOf")):
            part = self.plain_object(each, depth + 1)
            if part is None:
                return None
            properties = {**part.properties, **properties}
            required |= part.required
        return PlainObject(properties, required) if properties else None

    def is_object(self, schema: Any, depth: int = 0) -> bool:
        """Whether all that a schema permits is objects. Raises Unresolved."""
        schema = self.raw(schema)
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return False
        if "type" in schema:
            return schema["type"] in ("object", ["object"])
        if any(self.is_object(each, depth + 1) for each in _list(schema.get("allOf"))):
            return True
        for name in ("oneOf", "anyOf"):
            if alternatives := _list(schema.get(name)):
                return all(self.is_object(each, depth + 1) for each in alternatives)
        return isinstance(schema.get("properties"), dict)

    # --- definitions ----------------------------------------------------------------------------------------------

    def _closure(self, references: Iterable[str], purpose: Purpose) -> dict[str, Any]:
        """All that is referred to, the nearest first; beyond the room there is for it, only its types."""
        found: dict[str, Any] = {}
        size = 0
        near = list(references)
        while near:
            far: dict[str, None] = {}
            for reference in near:
                name = self._name(reference)
                if name in found:
                    continue
                definition = self._definition(reference, purpose)
                if size + definition.size > purpose.room:
                    found[name] = _only_type(definition.schema)
                    continue
                found[name] = definition.schema
                size += definition.size
                far |= dict.fromkeys(definition.references)
            near = list(far)
        return found

    def _definition(self, reference: str, purpose: Purpose) -> _Definition:
        key = reference, purpose
        known = self._definitions.get(key)
        if known is None:
            references: dict[str, None] = {}
            schema = self._schema(target(self._document, reference), purpose, references, 0)
            if isinstance(schema, dict) and set(schema) == {"$ref"} and self._is_circle(reference):
                raise Unresolved(f"its references lead in a circle: {reference[:200]}")
            known = self._definitions[key] = _Definition(schema, tuple(references), len(orjson.dumps(schema)))
        return known

    def _is_circle(self, reference: str) -> bool:
        try:
            self.raw({"$ref": reference})
        except Unresolved:
            return True
        return False

    def _name(self, reference: str) -> str:
        """The name in `$defs` of what a reference points at."""
        known = self._names.get(reference)
        if known is None:
            last = reference.rsplit("/", 1)[-1]
            first = re.sub(r"[^A-Za-z0-9_.-]+", "_", last)[:_MAX_NAME] or "schema"
            known, number = first, 2
            while known in self._taken:
                known, number = f"{first}_{number}", number + 1
            self._taken.add(known)
            self._names[reference] = known
        return known

    # --- one schema -----------------------------------------------------------------------------------------------

    def _schema(self, schema: Any, purpose: Purpose, references: dict[str, None], depth: int) -> Any:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return {}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            references[reference] = None
            found: dict[str, Any] = {"$ref": f"#/$defs/{self._name(reference)}"}
            return found | _description(schema, purpose)
        if schema.get("type") == "file":
            raise TakesFile
        found = _types(schema)
        if purpose is Purpose.TAKEN:
            found |= _bounds(schema)
            if schema.get("format") in _BINARY and found.get("type") == "string":
                raise TakesFile
        found |= _description(schema, purpose) | self._parts(schema, purpose, references, depth)
        if purpose is Purpose.ANSWERED:
            return _loosened(found)
        return _nullable(found) if schema.get("nullable") is True or schema.get("x-nullable") is True else found

    def _parts(
        self, schema: Mapping[str, Any], purpose: Purpose, references: dict[str, None], depth: int
    ) -> dict[str, Any]:
        """The schemas inside of one."""
        found: dict[str, Any] = {}

        def inner(value: Any) -> Any:
            return self._schema(value, purpose, references, depth + 1)

        hidden = "readOnly" if purpose is Purpose.TAKEN else "writeOnly"
        for name in _SCHEMAS_BY_NAME:
            if isinstance(each := schema.get(name), dict):
                found[name] = {
                    key: inner(value)
                    for key, value in each.items()
                    if not (isinstance(value, dict) and value.get(hidden) is True)
                }
        for name in _LISTS:
            if values := [value for value in _list(schema.get(name)) if isinstance(value, dict | bool)]:
                found[name] = [inner(value) for value in values]
        for name in _SINGLE:
            if isinstance(each := schema.get(name), dict | bool):
                found[name] = inner(each)
        if values := _list(schema.get("items")):
            found["prefixItems"] = [inner(value) for value in values]
        if purpose is Purpose.TAKEN and (required := _texts(schema.get("required"))):
            properties = schema.get("properties")
            known = properties if isinstance(properties, dict) else {}
            kept = [each for each in sorted(required) if each not in known or each in found["properties"]]
            if kept:
                found["required"] = kept
        return found


def _types(schema: Mapping[str, Any]) -> dict[str, Any]:
    given = schema.get("type")
    if isinstance(given, str):
        return {"type": given} if given in _TYPES else {}
    named = [each for each in _list(given) if each in _TYPES]
    return {"type": list(dict.fromkeys(named))} if named else {}


def _bounds(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a value beside its type, where it is said as it should be."""
    found: dict[str, Any] = {}
    for name in _NUMBERS:
        if _is_number(value := schema.get(name)):
            found[name] = value
    for side, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if schema.get(exclusive) is True and side in found:  # 3.0's way
            found[exclusive] = found.pop(side)
    if found.get("multipleOf", 1) <= 0:
        del found["multipleOf"]
    for name in _COUNTS:
        value = schema.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            found[name] = value
    for name in ("pattern", "format"):
        if isinstance(schema.get(name), str):
            found[name] = schema[name]
    if schema.get("uniqueItems") is True:
        found["uniqueItems"] = True
    if values := _list(schema.get("enum")):
        found["enum"] = values
    for name in ("const", "default"):
        if name in schema:
            found[name] = schema[name]
    return found


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema, which null satisfies too (3.0's `nullable`)."""
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema = {**schema, "enum": [*schema["enum"], None]}
    given = schema.get("type")
    if given is None:
        return schema if not schema.keys() - {"description", "default"} else {"anyOf": [schema, {"type": "null"}]}
    types = [given] if isinstance(given, str) else given
    return schema if "null" in types else {**schema, "type": [*types, "null"]}


def _loosened(schema: dict[str, Any]) -> dict[str, Any]:
    """What an answer may be: of these types or null."""
    found = {name: value for name, value in schema.items() if name not in ("not", "if", "then", "else", "contains")}
    found.pop("propertyNames", None)
    if isinstance(found.get("additionalProperties"), bool):
        del found["additionalProperties"]
    if "oneOf" in found:
        alternatives = found.pop("oneOf")
        found.setdefault("anyOf", alternatives)
    if found.get("type") == "integer":
        found["type"] = "number"
    return _nullable(found)


def _description(schema: Mapping[str, Any], purpose: Purpose) -> dict[str, Any]:
    text = schema.get("description")
    return {"description": cut(text, purpose.described)} if isinstance(text, str) and text.strip() else {}


def _only_type(schema: Any) -> Any:
    """What is left of a definition for which there is no room."""
    kept = ("type", "description") if isinstance(schema, dict) else ()
    return {name: schema[name] for name in kept if name in schema}


def cut(text: str, limit: int) -> str:
    """A text of at most so many characters, cut between words."""
    text = text.strip()
    return text if len(text) <= limit else text[: limit - 1].rsplit(None, 1)[0] + "…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _texts(value: Any) -> frozenset[str]:
    return frozenset(each for each in _list(value) if isinstance(each, str))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
