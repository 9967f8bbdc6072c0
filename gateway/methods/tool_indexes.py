"""The indexes of this worker in which tools are searched: one for all callers who see the same, made when asked for."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gateway.model.parts import Part, Target
from gateway.model.server import Server
from gateway.model.tokens import tokens_of
from gateway.model.tool_index import Document, ToolIndex
from gateway.model.view import View

_MAX_INDEXES = 64
_MAX_TOOLS = 50_000  # in all indexes together, of which each takes 2 KiB, and 3 where it is ranked by meaning
_STEP_SECONDS = 0.003  # for which one is made before others have their turn


MakeIndex = Callable[[Sequence[Document]], ToolIndex]
"""Makes the index of some tools, which is built then."""


@dataclass(frozen=True)
class Tools:
    """The tools of one view, or of one server at its own address: by their names there, and as they are found."""

    parts: tuple[Part, ...]
    """What they were made of: of the same parts comes the same."""
    by_name: dict[str, Document]
    table: Mapping[str, Target] = field(repr=False)
    """Where each name leads that can be called, also those that are not listed; empty at a server's own address."""
    index: ToolIndex = field(repr=False)
    tokens: int = 0
    """What all of them take of a model's context, estimated."""

    def find(self, name: str) -> Document | None:
        """The tool that a call by this name reaches: a public name before one without a prefix."""
        document = self.by_name.get(name)
        if document is not None:
            return document
        target, every = self.table.get(name), self.by_name.values()
        if target is not None:
            at = target.server.name, target.local
            return next((each for each in every if (each.target.server.name, each.target.local) == at), None)
        found = [each for each in every if each.target.shown == name]
        return found[0] if len(found) == 1 else None

    @cached_property
    def counts(self) -> dict[str, tuple[Server, int]]:
        """The servers, with how many of the tools they have."""
        found: dict[str, tuple[Server, int]] = {}
        for document in self.by_name.values():
            server = document.target.server
            found[server.name] = server, found.get(server.name, (server, 0))[1] + 1
        return found


class ToolIndexes:
    """Made once per view and content of the catalogue; after a change what was read of the same tools goes on."""

    def __init__(self, make: MakeIndex = ToolIndex) -> None:
        self._make = make
        self._known: OrderedDict[tuple[str, str | None], asyncio.Task[Tools]] = OrderedDict()
        self._newest: dict[tuple[str, str | None], tuple[weakref.ref[View], Tools]] = {}
        """What was found last: of the same view comes the same."""

    async def of(self, view: View, server: str | None) -> Tools:
        """The tools of a view; of one `server` under the names at its own address."""
        key = view.digest, server
        newest = self._newest.get(key)
        if newest is not None and newest[0]() is view:
            return newest[1]
        found = await self._of(key, view, server)
        self._newest = {each: kept for each, kept in self._newest.items() if each in self._known}
        self._newest[key] = weakref.ref(view), found
        return found

    async def _of(self, key: tuple[str, str | None], view: View, server: str | None) -> Tools:
        parts = tuple(
            part for part in view.parts.values() if part.server.is_enabled and server in (None, part.server.name)
        )
        task = self._known.get(key)
        former = None
        if task is not None:
            if not task.done():
                former = await asyncio.shield(task)
            elif not task.cancelled() and task.exception() is None:
                former = task.result()
            if former is not None and _are_same(former.parts, parts):
                self._known.move_to_end(key)
                return former
        task = self._known[key] = asyncio.create_task(_made(self._make, view, server, parts, former))
        self._known.move_to_end(key)
        found = await asyncio.shield(task)
        self._trim()
        return found

    def _trim(self) -> None:
        def size() -> int:
            done = [task for task in self._known.values() if task.done() and not (task.cancelled() or task.exception())]
            return sum(len(task.result().by_name) for task in done)

        while len(self._known) > 1 and (len(self._known) > _MAX_INDEXES or size() > _MAX_TOOLS):
            self._known.popitem(last=False)


def _are_same(one: tuple[Part, ...], other: tuple[Part, ...]) -> bool:
    return len(one) == len(other) and all(map(lambda a, b: a is b, one, other))


async def _made(
    make: MakeIndex, view: View, server: str | None, parts: tuple[Part, ...], former: Tools | None
) -> Tools:
    pace, tokens = _Pace(), 0
    documents: dict[str, Document] = {}
    table = view.public["tools"] if server is None else {}
    words = {part.server.name: _words(part.server) for part in parts}
    for name, item, target in _offered(view, server, parts):
        if name not in documents:
            documents[name] = Document(name, words[target.server.name], item, target)
            tokens += tokens_of(item)
            await pace.rest()
    index = make(list(documents.values()))
    for _ in index.build(None if former is None else former.index):
        await pace.rest()
    return Tools(parts, documents, table, index, tokens)


def _offered(
    view: View, server: str | None, parts: tuple[Part, ...]
) -> Iterator[tuple[str, Mapping[str, Any], Target]]:
    """The tools with their names, and where these lead."""
    if server is None:
        table = view.public["tools"]
        yield from ((item["name"], item, table[item["name"]]) for _, item in view.items("tools"))
        return
    for part in parts:
        for _, item in part.named("tools"):
            if (target := part.tool(item["name"])) is not None:
                yield item["name"], item, target


class _Pace:
    """Lets others have their turn every few milliseconds."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def rest(self) -> None:
        if time.monotonic() - self._began > _STEP_SECONDS:
            await asyncio.sleep(0)
            self._began = time.monotonic()


def _words(server: Server) -> str:
    """What is said of a server as a whole."""
    spec = server.spec
    return f"{spec.name} {spec.title or ''} {spec.description[:300]} {' '.join(spec.tags)}"
