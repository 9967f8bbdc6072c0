"""What of a list is asked for: by server, by tag, by words, and a page at a time.

The same parameters as a query string (REST) and as JSON-RPC's params.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from gateway.errors import BadQuery, InvalidParams
from gateway.model.cursors import Cursors
from gateway.model.server import Server

Item = TypeVar("Item")

_KNOWN = ("server", "tag", "q", "limit", "cursor", "tokens")
_MAX_LIMIT = 10_000
_MAX_WORDS = 200  # characters
_SEARCHED = ("name", "title", "description", "uri", "uriTemplate")


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A filter and a page; `limit` None is everything, `after` the identity of the last item of the page before."""

    servers: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    words: tuple[str, ...] = ()
    limit: int | None = None
    after: str | None = None
    tokens: bool = False
    """Whether to tell what tools take of a model's context."""

    @classmethod
    def from_query_string(cls, query: bytes, cursors: Cursors, *, is_stream: bool) -> ListQuery:
        """Read a REST list's query. Raises BadQuery, which lists what there is."""
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        found: dict[str, list[str]] = {}
        for name, value in pairs:
            if name not in _KNOWN:
                raise BadQuery(f"There is no parameter {name[:64]!r}; lists take {', '.join(_KNOWN)}.", name[:64])
            found.setdefault(name, []).append(value)
        if is_stream and (page := found.keys() & {"limit", "cursor"}):
            name = min(page)
            raise BadQuery(f"{name!r} is for 'Accept: application/json': a stream carries the whole list.", name)
        limit = found.get("limit", [""])[-1]
        if limit and not (limit.isascii() and limit.isdigit() and len(limit) < 9):
            raise BadQuery(f"'limit' must be a number from 1 to {_MAX_LIMIT}.", "limit")
        return cls(
            servers=frozenset(found.get("server", ())),
            tags=frozenset(found.get("tag", ())),
            words=_words(" ".join(found.get("q", ())), BadQuery),
            limit=read_limit(int(limit), _MAX_LIMIT, BadQuery) if limit else None,
            after=cursors.read(found.get("cursor", [""])[-1]),
            tokens=_tokens({"true": True, "false": False}.get(found.get("tokens", ["false"])[-1]), BadQuery),
        )

    @classmethod
    def from_params(cls, params: Mapping[str, Any], cursors: Cursors) -> ListQuery:
        """Read the params of a JSON-RPC list. Raises InvalidParams."""
        for name in params:
            if name not in (*_KNOWN, "_meta"):
                raise InvalidParams(f"There is no parameter {name[:64]!r}; lists take {', '.join(_KNOWN)}.", name[:64])
        words, limit = params.get("q"), params.get("limit")
        if not isinstance(words, str | None):
            raise InvalidParams("'q' must be a string.", "q")
        return cls(
            servers=_strings(params, "server"),
            tags=_strings(params, "tag"),
            words=_words(words or "", InvalidParams),
            limit=None if limit is None else read_limit(limit, _MAX_LIMIT),
            after=cursors.read(params.get("cursor")),
            tokens=_tokens(params.get("tokens", False), InvalidParams),
        )

    def takes(self, server: Server, item: Mapping[str, Any]) -> bool:
        """Tell whether an item of a server is asked for; in a list of servers the item is the server's document."""
        if self.servers and server.name not in self.servers:
            return False
        if self.tags and self.tags.isdisjoint(server.spec.tags):
            return False
        return self.takes_words(item)

    def takes_words(self, item: Mapping[str, Any]) -> bool:
        """Tell whether an item has all words that are asked for."""
        if not self.words:
            return True
        text = " ".join(value for field in _SEARCHED if isinstance(value := item.get(field), str)).casefold()
        return all(word in text for word in self.words)

    def page(self, items: Sequence[Item], identity: Callable[[Item], str]) -> tuple[list[Item], str | None]:
        """The page of items that are ordered by their identity, and the identity that the next one comes after."""
        rest = [item for item in items if self.after is None or identity(item) > self.after]
        if self.limit is None or len(rest) <= self.limit:
            return rest, None
        return rest[: self.limit], identity(rest[self.limit - 1])


def _words(text: str, refusal: type[InvalidParams]) -> tuple[str, ...]:
    """The words that are searched for; bounded, since each is looked for in every item."""
    if len(text) > _MAX_WORDS:
        raise refusal(f"'q' must be a text of at most {_MAX_WORDS} characters.", "q")
    return tuple(dict.fromkeys(text.casefold().split()))


def _tokens(value: Any, refusal: type[InvalidParams]) -> bool:
    if not isinstance(value, bool):
        raise refusal("'tokens' must be true or false.", "tokens")
    return value


def read_limit(value: Any, most: int, refusal: type[InvalidParams] = InvalidParams) -> int:
    """Read how many items a page has at most. Raises InvalidParams, or what stands in for it."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise refusal(f"'limit' must be a number from 1 to {most}.", "limit")
    return value


def _strings(params: Mapping[str, Any], name: str) -> frozenset[str]:
    value = params.get(name)
    values: Iterable[Any] = () if value is None else value if isinstance(value, list) else (value,)
    found = tuple(values)
    if not all(isinstance(each, str) for each in found):
        raise InvalidParams(f"{name!r} must be a string or a list of strings.", name)
    return frozenset(found)
