"""Grants: which servers, tools, prompts and resources a key may see and call. Pure values, read once, matched by view.

`{"allow": [rule, …], "deny": [rule, …]}`. In a rule `servers`, `tags` (of the server) and `annotations` must all match;
`tools`, `prompts` and `resources` are alternatives by kind. A rule that names none of the three is about all kinds,
with `annotations` about tools only. A deny wins. Names, URIs and annotations are the server's own. A rule with
`toolsets` gives toolsets' addresses, and nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import orjson

from gateway.errors import InvalidParams
from gateway.model.normal_uri import normal_spelling, spellings

MAX_RULES = 256  # of each list
_MAX_VALUES = 256  # of one field
_MAX_TEXT = 256  # characters of one value
_MAX_BYTES = 64 << 10
_LISTS = ("servers", "tags", "tools", "prompts", "resources", "toolsets")
_KIND_OF = {"tools": "tools", "prompts": "prompts", "resources": "resources", "templates": "resources"}
_HINTS = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": True}
"""MCP's hints, with what holds where a tool does not say (MCP 2025-11-25, ToolAnnotations)."""
SAFE = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}
"""The value of each hint that lets more callers in."""


class Globs:
    """Texts with `*` and `?`, as one pattern. Matching takes time that grows with the text only.

    What a `*` passed over is not tried anew (an atomic group): the first place where the next piece stands is as good
    as any later one.
    """

    __slots__ = ("_pattern", "texts")

    def __init__(self, texts: tuple[str, ...], *, of_uris: bool = False) -> None:
        """Those `of_uris` match in their normal spelling, too."""
        self.texts = texts
        every = dict.fromkeys([*texts, *map(normal_spelling, texts)] if of_uris else texts)
        self._pattern = re.compile("|".join(map(_pattern, every)), re.DOTALL)

    def match(self, text: str) -> bool:
        return self._pattern.fullmatch(text) is not None


def _pattern(glob: str) -> str:
    first, *rest = (re.escape(piece).replace(r"\?", ".") for piece in re.sub(r"\*+", "*", glob).split("*"))
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>.*?{piece})" for piece in middle) + f".*{last}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; None where it does not speak of a field."""

    servers: Globs | None = None
    tags: Globs | None = None
    annotations: Mapping[str, bool] | None = None
    tools: Globs | None = None
    prompts: Globs | None = None
    resources: Globs | None = None
    toolsets: Globs | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it takes servers as a whole."""
        return self.annotations is None and self.names_no_kind

    @property
    def names_no_kind(self) -> bool:
        return self.tools is None and self.prompts is None and self.resources is None

    def takes_server(self, name: str, tags: tuple[str, ...]) -> bool:
        if self.toolsets is not None or not (self.servers is None or self.servers.match(name)):
            return False
        return self.tags is None or any(map(self.tags.match, tags))

    def takes(self, kind: str, text: str, hints: Mapping[str, bool]) -> bool:
        """Tell whether it takes something of a server that it takes; `kind` is tools, prompts or resources."""
        if self.annotations is not None and not (kind == "tools" and self.annotations.items() <= hints.items()):
            return False
        if self.names_no_kind:
            return True
        globs: Globs | None = getattr(self, kind)
        return globs is not None and globs.match(text)


@dataclass(frozen=True, slots=True)
class ServerGrants:
    """What grants say of one server."""

    allow: tuple[Rule, ...]
    deny: tuple[Rule, ...]
    trusts: bool = True
    """Whether what the server says of its tools is believed."""

    @property
    def is_whole(self) -> bool:
        """Whether everything of the server may be seen, whatever it comes to offer."""
        return not self.deny and self.is_seen

    @property
    def is_seen(self) -> bool:
        """Whether the server may be seen, even while nothing that it offers may."""
        return any(rule.is_whole for rule in self.allow) and not any(rule.is_whole for rule in self.deny)

    @property
    def is_nothing(self) -> bool:
        return not self.allow or any(rule.is_whole for rule in self.deny)

    def sees(
        self,
        kind: str,
        text: str,
        item: Mapping[str, Any] | None = None,
        doubted: Mapping[str, bool] | None = None,
    ) -> bool:
        """Tell whether something may be seen: a name or a URI of one of the catalogue's kinds, as its server has it.

        `doubted` are a tool's hints as they are believed, where it claims more.
        """
        kind, hints = _KIND_OF[kind], believed(item if self.trusts else None)
        if self.trusts and doubted is not None:
            hints = dict(doubted)
        judged: tuple[str, ...] = (text,)
        read = judged
        if kind == "resources":
            found = spellings(text)
            if found is None:
                return False
            judged, read = found.judged, found.read
        return any(rule.takes(kind, each, hints) for rule in self.allow for each in judged) and not any(
            rule.takes(kind, each, hints) for rule in self.deny for each in read
        )


def believed(tool: Mapping[str, Any] | None) -> dict[str, bool]:
    """The hints of a tool's annotations, with MCP's defaults; a tool that reads only destroys nothing."""
    said = tool.get("annotations") if tool is not None else None
    given = {name: value for name, value in said.items() if type(value) is bool} if isinstance(said, Mapping) else {}
    hints = {name: given.get(name, default) for name, default in _HINTS.items()}
    if hints["readOnlyHint"] and "destructiveHint" not in given:
        hints["destructiveHint"] = False
    return hints


@dataclass(frozen=True, eq=False)
class Grants:
    """What one key may see and call. Those with the same digest are the same."""

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    """As it was given."""

    def gives_toolset(self, slug: str) -> bool:
        """Tell whether they give a toolset's address."""

        def names(rules: tuple[Rule, ...]) -> bool:
            return any(rule.toolsets is not None and rule.toolsets.match(slug) for rule in rules)

        return names(self.allow) and not names(self.deny)

    @cached_property
    def digest(self) -> str:
        return sha256(orjson.dumps(self.source, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]

    def of_server(self, name: str, tags: tuple[str, ...], *, trusts: bool = True) -> ServerGrants:
        """What they say of one server."""
        allow, deny = (
            tuple(rule for rule in rules if rule.takes_server(name, tags)) for rules in (self.allow, self.deny)
        )
        return ServerGrants(allow, deny, trusts)


NOTHING = Grants()


def read_grants(value: Any) -> Grants:
    """Read grants as callers send them. Raises InvalidParams, which names the place."""
    if value is None:
        return NOTHING
    if not isinstance(value, Mapping):
        raise InvalidParams("'grants' must be an object with 'allow' and 'deny'.", "grants")
    for name in value:
        if name not in ("allow", "deny"):
            raise InvalidParams(f"There is no field {name[:64]!r} in grants; they take 'allow' and 'deny'.", "grants")
    if len(orjson.dumps(value)) > _MAX_BYTES:
        raise InvalidParams(f"'grants' must take at most {_MAX_BYTES} bytes.", "grants")
    allow, deny = (read_rules(value.get(name), f"grants.{name}") for name in ("allow", "deny"))
    return Grants(allow, deny, dict(value))


def read_rules(value: Any, at: str) -> tuple[Rule, ...]:
    """Read a list of rules. Raises InvalidParams."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidParams(f"'{at}' must be a list of rules.", at)
    if len(value) > MAX_RULES:
        raise InvalidParams(f"'{at}' must have at most {MAX_RULES} rules.", at)
    return tuple(read_rule(each, f"{at}[{number}]") for number, each in enumerate(value))


def read_rule(value: Any, at: str) -> Rule:
    """Read one rule. Raises InvalidParams."""
    if not isinstance(value, Mapping):
        raise InvalidParams(f"'{at}' must be an object.", at)
    for name in value:
        if name not in (*_LISTS, "annotations"):
            known = ", ".join((*_LISTS, "annotations"))
            raise InvalidParams(f"There is no field {name[:64]!r} in a rule; rules take {known}.", at)
    if not value:
        raise InvalidParams(f'\'{at}\' must say something: for everything write {{"servers": ["*"]}}.', at)
    if "toolsets" in value and len(value) > 1:
        raise InvalidParams(f"'{at}' has 'toolsets', and no other field may stand beside it.", at)
    if "annotations" in value and value.keys() & {"prompts", "resources"}:
        raise InvalidParams(f"'{at}' has 'annotations', which are about tools: prompts and resources have none.", at)
    lists: dict[str, Any] = {name: _globs(value[name], f"{at}.{name}") for name in _LISTS if name in value}
    hints = _hints(value["annotations"], f"{at}.annotations") if "annotations" in value else None
    return Rule(**lists, annotations=hints)


def _globs(value: Any, at: str) -> Globs:
    if not isinstance(value, list) or not value:
        raise InvalidParams(f"'{at}' must be a list with at least one text.", at)
    if len(value) > _MAX_VALUES:
        raise InvalidParams(f"'{at}' must have at most {_MAX_VALUES} texts.", at)
    for each in value:
        if not isinstance(each, str) or not 1 <= len(each) <= _MAX_TEXT:
            raise InvalidParams(f"'{at}' must hold texts of 1 to {_MAX_TEXT} characters.", at)
    return Globs(tuple(dict.fromkeys(value)), of_uris=at.endswith(".resources"))


def _hints(value: Any, at: str) -> dict[str, bool]:
    if not isinstance(value, Mapping) or not value:
        raise InvalidParams(f"'{at}' must be an object with at least one hint.", at)
    for name, each in value.items():
        if name not in _HINTS or type(each) is not bool:
            raise InvalidParams(f"'{at}' takes {', '.join(_HINTS)}, each true or false.", at)
    return dict(value)
