"""Overrides: what callers see of a tool in place of what its server says, and what the server is sent then. Pure.

An override may stand on a server and on a toolset; a toolset's comes on top, field by field. It is applied to the
definition as the server has it, by the server's own names. Of arguments only those at the top of the input schema can
be overridden; one that the schema speaks of elsewhere, too (`allOf`, `if`, a `$ref` to it, …), keeps its name and stays
visible, since the schema would say something else then.

An override that does not fit the tool (the server changed it, say) is not passed over: the tool is not served until
one of the two is mended, since a fixed or a hidden argument may be there to keep callers out of something. Likewise a
hint never claims more safety than the server's own does, unless the override is trusted.

Source: JSON Schema 2020-12, core, 7 and 10; MCP 2025-11-25, server features, tools.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from gateway.errors import InvalidParams
from gateway.model.grants import SAFE, believed
from gateway.model.reference_texts import references_in
from gateway.model.result_policy import policy_of

_ELSEWHERE = (
    "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependentRequired", "dependencies",
)  # fmt: skip
_PATTERNS = ("patternProperties", "propertyNames")

Override = Mapping[str, Any]
"""The override of one tool, as it was read: `name`, `title`, `arguments` and so on, each optional."""
Item = Mapping[str, Any]


class Misfit(Exception):
    """An override does not fit its tool; `at` is the field of the override."""

    def __init__(self, at: str, why: str) -> None:
        super().__init__(why)
        self.at = at
        self.why = why


@dataclass(frozen=True, slots=True)
class Rewrite:
    """How a caller's arguments become the server's. `schema` is the one that callers see."""

    schema: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    """Renamed arguments: the server's name by the callers'."""
    refused: frozenset[str] = frozenset()
    """Names that callers must not send: of hidden arguments, and those that were renamed."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """What is always sent, by the server's names."""
    is_secret: bool = False
    """Whether what is always sent refers to secrets."""

    def outward(self, arguments: Mapping[str, Any] | None) -> dict[str, Any]:
        """The arguments that the server gets. Raises InvalidParams for one that callers must not send."""
        sent: dict[str, Any] = {**self.defaults}
        for name, value in (arguments or {}).items():
            if name in self.refused:
                raise InvalidParams(f"The tool has no argument {name[:64]!r}.", f"arguments.{name[:64]}")
            sent[self.names.get(name, name)] = value
        for name, value in self.fixed.items():
            if name in sent and sent[name] != value:
                raise InvalidParams(f"The argument {name[:64]!r} has a fixed value.", f"arguments.{name[:64]}")
            sent[name] = value
        return sent


@dataclass(frozen=True, slots=True)
class Overridden:
    """A tool as callers see it, under its name at the server's own address, and how it is called."""

    item: Item
    rewrite: Rewrite | None
    """None where its arguments are as the server has them."""
    override: Override


def merged(below: Override | None, above: Override | None) -> Override:
    """Two overrides of one tool as one: what `above` says wins, field by field, also in arguments and annotations."""
    if not below or not above:
        return below or above or {}
    both = {**below, **above}
    for name in ("annotations", "arguments", "results"):
        if name in below and name in above:
            both[name] = {**below[name], **above[name]}
    for name, argument in below.get("arguments", {}).items():
        if name in above.get("arguments", {}):
            both["arguments"][name] = {**argument, **above["arguments"][name]}
    if "trust" in below and "annotations" in above and "trust" not in above:
        both["trust"] = False  # trust is in the hints that it came with
    return both


def apply(tool: Item, override: Override, doubted: Mapping[str, bool] | None = None) -> Overridden:
    """A tool under an override. `doubted` are its hints as they are believed, where it claims more.

    Raises Misfit.
    """
    item: dict[str, Any] = {**tool}
    for part in ("name", "title", "description"):
        if override.get(part) is not None:
            item[part] = override[part]
    if (policy := policy_of(override)) is not None and policy.changes_shape:
        item.pop("outputSchema", None)  # it would not be true
    if "annotations" in override:
        item["annotations"] = _annotations(tool, override, doubted)
    rewrite = None
    if arguments := override.get("arguments"):
        rewrite = _rewritten(tool, arguments)
        item["inputSchema"] = rewrite.schema
    return Overridden(item, rewrite, override)


def claims_more(tool: Item, override: Override, doubted: Mapping[str, bool] | None = None) -> list[str]:
    """The hints by which an override claims more safety than what is believed of the tool."""
    known = doubted or believed(tool)
    given = override.get("annotations", {})
    return [hint for hint, safe in SAFE.items() if given.get(hint) is safe and known[hint] is not safe]


def _annotations(tool: Item, override: Override, doubted: Mapping[str, bool] | None) -> dict[str, Any]:
    said = tool.get("annotations")
    own = dict(said) if isinstance(said, Mapping) else {}
    given = dict(override["annotations"])
    if not override.get("trust"):
        for hint in claims_more(tool, override, doubted):
            del given[hint]
    return own | given


def _rewritten(tool: Item, arguments: Mapping[str, Override]) -> Rewrite:
    schema = tool.get("inputSchema")
    schema = schema if isinstance(schema, Mapping) else {}
    found = schema.get("properties")
    properties: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    said = schema.get("required")
    required = [name for name in said if isinstance(name, str)] if isinstance(said, list) else []
    names: dict[str, str] = {}
    shown: dict[str, Any] = {}
    gone: set[str] = set()
    elsewhere = None
    for name, override in arguments.items():
        if override.get("hide") or override.get("name", name) != name:
            elsewhere = elsewhere or _Elsewhere(schema)
        _check(elsewhere, properties, required, name, override)
    for name, part in properties.items():
        override = arguments.get(name, {})
        if override.get("hide"):
            gone.add(name)
            continue
        public = override.get("name", name)
        if public in shown:
            raise Misfit(f"arguments.{name}.name", f"two arguments would be {public!r}")
        shown[public] = _argument(part, override) if override else part
        if public != name:
            names[public] = name
            gone.add(name)
    fixed = {name: each["value"] for name, each in arguments.items() if "value" in each}
    return Rewrite(
        {**schema, "properties": shown, "required": list(_required(required, arguments))},
        names,
        frozenset(gone - shown.keys()),
        {name: each["default"] for name, each in arguments.items() if "default" in each},
        fixed,
        is_secret=any(references_in(fixed)),
    )


def _check(
    elsewhere: _Elsewhere | None,
    properties: Mapping[str, Any],
    required: list[str],
    name: str,
    override: Override,
) -> None:
    """Let an argument's override pass that fits. Raises Misfit."""
    at = f"arguments.{name}"
    if name not in properties:
        raise Misfit(at, f"the tool has no argument {name!r} at the top of its schema")
    is_given = "default" in override or "value" in override
    if override.get("hide") or override.get("name", name) != name:
        what = "hidden" if override.get("hide") else "renamed"
        if elsewhere is not None and (where := elsewhere.find(name)) is not None:
            raise Misfit(at, f"{name!r} can't be {what}: the schema speaks of it in {where!r}, too")
    if name in required and not is_given:
        if override.get("hide"):
            raise Misfit(f"{at}.hide", f"the server requires {name!r}: hidden it needs a 'value' or a 'default'")
        if override.get("required") is False:
            raise Misfit(f"{at}.required", f"the server requires {name!r}: optional it needs a 'value' or a 'default'")


class _Elsewhere:
    """Where a schema speaks of arguments beside its `properties` and `required`; read once for all of them."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._named = {keyword: set(_texts(schema[keyword])) for keyword in _ELSEWHERE if keyword in schema}
        shared = [schema[keyword] for keyword in ("$defs", "definitions") if keyword in schema]
        for keyword, names in self._named.items():
            if shared and any(_references(schema[keyword])):  # it may say there what it says of them
                names.update(_texts(shared))
        self._always = next((keyword for keyword in _PATTERNS if keyword in schema), None)
        if self._always is None and isinstance(reference := schema.get("$ref"), str):
            self._always = f"$ref {reference[:60]}"
        self._references = {unquote(each) for each in _references(schema)}

    def find(self, name: str) -> str | None:
        """Where it speaks of an argument; None for nowhere."""
        for keyword, names in self._named.items():
            if name in names:
                return keyword
        if self._always is not None:
            return self._always
        pointer = f"#/properties/{name.replace('~', '~0').replace('/', '~1')}"
        if any(each == pointer or each.startswith(f"{pointer}/") for each in self._references):
            return f"$ref {pointer}"
        return None


def _texts(value: Any) -> Iterator[str]:
    """The keys, and the texts in lists, at any depth."""
    if isinstance(value, Mapping):
        yield from value
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, str):
                yield each
            else:
                yield from _texts(each)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key == "$ref" and isinstance(each, str):
                yield each
            else:
                yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def _argument(part: Any, override: Override) -> Any:
    """An argument's schema as callers see it."""
    changed = dict(part) if isinstance(part, Mapping) else ({} if part is True else {"not": {}})
    if "description" in override:
        changed["description"] = override["description"]
    if "default" in override:
        changed["default"] = override["default"]
    if "value" in override:
        changed["const"] = override["value"]
    return changed


def _required(required: list[str], arguments: Mapping[str, Override]) -> Iterator[str]:
    """The names that callers must send."""
    for name in required:
        override = arguments.get(name, {})
        is_given = "default" in override or "value" in override
        if override.get("hide") or (override.get("required") is not True and (is_given or "required" in override)):
            continue
        yield override.get("name", name)
    for name, override in arguments.items():
        if override.get("required") and name not in required and not override.get("hide"):
            yield override.get("name", name)
