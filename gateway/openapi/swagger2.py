"""Swagger 2.0 documents as OpenAPI 3.0 has them: one shape for all that follows.

What differs is moved, not judged: body and form parameters become a request body, a response's schema its content,
`host`, `basePath` and `schemes` a server. References keep their places (`#/definitions/…`), which stay in the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.openapi.document import Unresolved, followed

_VERBS = frozenset({"get", "put", "post", "delete", "patch", "head", "options"})
_OF_PARAMETER = ("name", "in", "description", "required", "allowEmptyValue")
_NOT_OF_SCHEMA = frozenset({*_OF_PARAMETER, "collectionFormat", "schema"})
_STYLES = {  # collectionFormat: style and explode, where the parameter stands in the query
    "csv": ("form", False),
    "multi": ("form", True),
    "ssv": ("spaceDelimited", False),
    "pipes": ("pipeDelimited", False),
}
_JSON = ("application/json",)
_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"


def lifted(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as 3.0 has it. What is malformed stays as it is, and fails where it is read."""
    found = {**document, "openapi": "3.0.3", "servers": _servers(document)}
    paths = document.get("paths")
    if isinstance(paths, dict):
        found["paths"] = {path: _path(document, item) for path, item in paths.items()}
    definitions = document.get("securityDefinitions")
    if isinstance(definitions, dict):
        found["components"] = {"securitySchemes": {name: _security(each) for name, each in definitions.items()}}
    return found


def _servers(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    host, path = document.get("host"), document.get("basePath")
    path = path if isinstance(path, str) else ""
    if not isinstance(host, str) or not host:
        return [{"url": path or "/"}]
    schemes = document.get("schemes")
    is_plain = isinstance(schemes, list) and "http" in schemes and "https" not in schemes
    return [{"url": f"{'http' if is_plain else 'https'}://{host}{path}"}]


def _security(scheme: Any) -> Any:
    if isinstance(scheme, dict) and scheme.get("type") == "basic":
        return {**scheme, "type": "http", "scheme": "basic"}
    return scheme


def _path(document: Mapping[str, Any], item: Any) -> Any:
    item = _followed(document, item)
    if not isinstance(item, dict):
        return item
    common = [_followed(document, each) for each in _list(item.get("parameters"))]
    found = {name: value for name, value in item.items() if name != "parameters"}
    for verb in _VERBS & item.keys():
        if isinstance(item[verb], dict):
            found[verb] = _operation(document, item[verb], common)
    return found


def _operation(document: Mapping[str, Any], operation: Mapping[str, Any], common: list[Any]) -> dict[str, Any]:
    own = [_followed(document, each) for each in _list(operation.get("parameters"))]
    named = {_identity(each) for each in own}
    parameters = [each for each in common if _identity(each) not in named] + own
    consumes = _types(operation, document, "consumes")
    produces = _types(operation, document, "produces")
    found = {name: value for name, value in operation.items() if name not in ("schemes", "consumes", "produces")}
    found["parameters"] = [_parameter(each) for each in parameters if _place(each) not in ("body", "formData")]
    body = next((each for each in parameters if _place(each) == "body"), None)
    form = [each for each in parameters if _place(each) == "formData"]
    if body is not None:
        content = {each: {"schema": body.get("schema", {})} for each in consumes}
        found["requestBody"] = {"content": content, "required": body.get("required", False)}
        if body.get("description"):
            found["requestBody"]["description"] = body["description"]
    elif form:
        found["requestBody"] = _form(form, consumes)
    responses = operation.get("responses")
    if isinstance(responses, dict):
        found["responses"] = {
            status: _response(_followed(document, each), produces) for status, each in responses.items()
        }
    return found


def _form(fields: list[Any], consumes: tuple[str, ...]) -> dict[str, Any]:
    has_file = any(each.get("type") == "file" for each in fields)
    is_multipart = has_file or (_MULTIPART in consumes and _FORM not in consumes)
    schema = {
        "type": "object",
        "properties": {str(each.get("name")): {**_schema(each), **_only(each, "description")} for each in fields},
        "required": [str(each.get("name")) for each in fields if each.get("required") is True],
    }
    media: dict[str, Any] = {"schema": schema}
    media["encoding"] = {
        str(each.get("name")): {"style": "form", "explode": each.get("collectionFormat") == "multi"}
        for each in fields
        if each.get("type") == "array"
    }
    required = bool(schema["required"])
    return {"content": {_MULTIPART if is_multipart else _FORM: media}, "required": required}


def _parameter(parameter: Any) -> Any:
    if not isinstance(parameter, dict):
        return parameter
    found = {name: parameter[name] for name in _OF_PARAMETER if name in parameter} | {"schema": _schema(parameter)}
    if parameter.get("type") == "array":
        style, explode = _STYLES.get(str(parameter.get("collectionFormat", "csv")), ("form", False))
        if parameter.get("in") == "query":
            found |= {"style": style, "explode": explode}
    return found


def _schema(parameter: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameter.items() if name not in _NOT_OF_SCHEMA and name[:2] != "x-"}


def _response(response: Any, produces: tuple[str, ...]) -> Any:
    if not isinstance(response, dict) or "schema" not in response:
        return response
    content = {each: {"schema": response["schema"]} for each in produces}
    return {name: value for name, value in response.items() if name not in ("schema", "examples")} | {
        "content": content
    }


def _types(operation: Mapping[str, Any], document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = operation.get(name) or document.get(name)
    named = tuple(each for each in _list(found) if isinstance(each, str))
    return named or _JSON


def _place(parameter: Any) -> Any:
    return parameter.get("in") if isinstance(parameter, dict) else None


def _identity(parameter: Any) -> tuple[Any, Any]:
    return (str(parameter.get("name")), str(parameter.get("in"))) if isinstance(parameter, dict) else (None, None)


def _followed(document: Mapping[str, Any], value: Any) -> Any:
    try:
        return followed(document, value)
    except Unresolved:
        return value  # it fails where it is read, with its reason


def _only(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {name: value[name]} if name in value else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
