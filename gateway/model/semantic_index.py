"""The index by words, and beside it what texts mean: a query finds also what it has no word in common with.

A tool's rank by words and its rank by meaning are joined as reciprocal ranks (Cormack, Clarke, Büttcher: Reciprocal
Rank Fusion, 2009), the one by meaning at half the weight: a mean of a few words' vectors errs more often.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.model.tool_index import Document, ToolIndex
from gateway.model.word_vectors import WordVectors

_RANKED = 40  # tools that each of the two ranks
_EVENED = 60  # what is added to a rank, so that the first few don't decide alone
_OF_MEANING = 0.5
_MAX_DESCRIPTION = 300  # characters; what comes later tells of arguments and errors
_STEP = 20  # tools that are read before others have their turn


class SemanticIndex(ToolIndex):
    """An index of some tools, by words and by meaning."""

    def __init__(self, documents: Sequence[Document], vectors: WordVectors) -> None:
        super().__init__(documents)
        self._vectors = vectors
        self._meanings = vectors.table(len(documents))
        self._numbers: dict[int, tuple[Mapping[str, Any], int]] = {}
        self._of: defaultdict[str, list[int]] = defaultdict(list)
        """The tools of each server."""

    def build(self, former: ToolIndex | None = None) -> Iterator[None]:
        """Make it, in steps of a few milliseconds."""
        yield from super().build(former)
        before = former if isinstance(former, SemanticIndex) else None
        for number, document in enumerate(self.documents):
            item = document.item
            seen = None if before is None else before._numbers.get(id(item))
            if before is not None and seen is not None and seen[0] is item:
                self._meanings[number] = before._meanings[seen[1]]
            else:
                self._meanings[number] = self._vectors.of(_text(document))
            self._numbers[id(item)] = item, number
            self._of[document.target.server.name].append(number)
            if number % _STEP == _STEP - 1:
                yield

    def _ranked(self, query: str, limit: int, server: str | None) -> list[int]:
        scores: defaultdict[int, float] = defaultdict(float)
        for rank, number in enumerate(super()._ranked(query, _RANKED, server), 1):
            scores[number] += 1 / (_EVENED + rank)
        for rank, number in enumerate(self._near(query, server), 1):
            scores[number] += _OF_MEANING / (_EVENED + rank)
        return sorted(scores, key=scores.__getitem__, reverse=True)[:limit]

    def _near(self, query: str, server: str | None) -> list[int]:
        wanted = self._vectors.of(query)
        return self._vectors.nearest(self._meanings, wanted, _RANKED, None if server is None else self._of[server])


def _text(document: Document) -> str:
    """What a tool is told by."""
    item = document.item
    description = item.get("description")
    said = description[:_MAX_DESCRIPTION] if isinstance(description, str) else ""
    return f"{document.server} {document.target.shown} {item.get('title') or ''} {said}"
