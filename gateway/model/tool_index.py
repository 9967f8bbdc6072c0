"""An index of tools by their words: which of some hundred or thousand fit a task that somebody puts in a few words.

Ranking is lexical, BM25F (Robertson, Zaragoza: The Probabilistic Relevance Framework, 2009, 3.6): a word counts more
the fewer tools have it, and by the field in which it stands. Words are split at case, digits and underscores, brought
to their stem, and stop words are left out. What a word adds to a tool's score does not depend on the query, so that it
is computed when the index is made; a query only adds up. A word that a tool does not have counts by its kin
(`word_kin`), at less weight: of a word and its kin the best counts, once.
"""

from __future__ import annotations

import heapq
import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import Stemmer

from gateway.model.parts import Target
from gateway.model.word_kin import KIN, STOP_WORDS

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")
_MAX_TEXT = 4_000  # characters of a description that are read
_MAX_WORDS = 24  # of a query
_K1 = 1.0
_OF_SERVER = 5.0  # as much as a word that one tool of some hundred has
_MAX_POSTINGS = 200  # tools of one word: one that is in more tells little
_MAX_MERGED = 20_000  # words
_SCORE = itemgetter(1)
_STEP = 100  # tools that are read before others have their turn
_POSTINGS_AT_ONCE = 10_000  # words of tools that are weighed before that

Words = dict[str, int]
"""How often each word is there. A plain dict, which Python's collector of garbage does not look into."""


@dataclass(frozen=True, slots=True)
class Field:
    """How much a word in a field weighs, and how much longer fields are discounted (b)."""

    weight: float
    discount: float


FIELDS: Mapping[str, Field] = {
    "name": Field(4.0, 0.5),
    "title": Field(1.0, 0.5),
    "server": Field(1.0, 0.3),
    "description": Field(0.6, 0.75),
    "arguments": Field(0.3, 0.5),
}


@dataclass(frozen=True, slots=True)
class Document:
    """One tool: its public name, its server's words, its definition and where it leads."""

    name: str
    server: str
    item: Mapping[str, Any]
    target: Target


class _Postings:
    """The tools that have a word, and how much it weighs in each: arrays, which take a tenth of a list of pairs."""

    __slots__ = ("tools", "weights")

    def __init__(self) -> None:
        self.tools = array("I")
        self.weights = array("d")

    def pairs(self) -> Iterable[tuple[int, float]]:
        return zip(self.tools, self.weights, strict=True)


_NOWHERE = _Postings()


class ToolIndex:
    """An index of some tools; `former` is one before it, whose reading of the same definitions goes on."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = documents
        self._read: dict[int, tuple[Mapping[str, Any], dict[str, Words]]] = {}
        self._postings: dict[str, _Postings] = {}
        self._merged: dict[str, dict[int, float]] = {}
        self._by_server: defaultdict[str, list[int]] = defaultdict(list)
        """The tools of servers that have a word in their name: who names a product wants its tools."""

    def build(self, former: ToolIndex | None = None) -> Iterator[None]:
        """Make it, in steps of a few milliseconds."""
        stem = Stemmer.Stemmer("english").stemWords
        known = {} if former is None else former._read
        fields: list[dict[str, Words]] = []
        for number, document in enumerate(self.documents):
            seen = known.get(id(document.item))
            words = seen[1] if seen is not None and seen[0] is document.item else _fields(document, stem)
            self._read[id(document.item)] = document.item, words
            fields.append(words)
            for word in set(stems(document.target.server.name)):
                self._by_server[word].append(number)
            if number % _STEP == _STEP - 1:
                yield
        yield from self._weigh(fields)

    def _weigh(self, fields: Sequence[Mapping[str, Words]]) -> Iterator[None]:
        totals, counts = dict.fromkeys(FIELDS, 0), dict.fromkeys(FIELDS, 0)
        for number, each in enumerate(fields):
            for name in FIELDS:
                total = sum(each[name].values())
                totals[name] += total
                counts[name] += bool(total)
            if number % _STEP == _STEP - 1:
                yield
        average = {name: totals[name] / max(1, counts[name]) or 1.0 for name in FIELDS}
        yield
        found: defaultdict[str, _Postings] = defaultdict(_Postings)
        for number, each in enumerate(fields):
            weights: defaultdict[str, float] = defaultdict(float)
            for name, field in FIELDS.items():
                words = each[name]
                length = 1 - field.discount + field.discount * sum(words.values()) / average[name]
                for word, count in words.items():
                    weights[word] += field.weight * count / length
            for word, weight in weights.items():
                postings = found[word]
                postings.tools.append(number)
                postings.weights.append(weight)
            if number % _STEP == _STEP - 1:
                yield
        work = 0
        for postings in found.values():
            scores = postings.weights
            for at, weight in enumerate(scores):
                scores[at] = weight / (_K1 + weight)
            work += 10 + len(scores)
            if work > _POSTINGS_AT_ONCE:
                work = 0
                yield
        self._postings = dict(found)

    def _rarity(self, count: int) -> float:
        """What a word counts that so many tools have."""
        return math.log(1 + (len(self.documents) - count + 0.5) / (count + 0.5))

    def search(self, query: str, limit: int, server: str | None = None) -> list[Document]:
        """The tools that fit best, the best first, at most `limit`; of one `server` if told."""
        return [self.documents[number] for number in self._ranked(query, limit, server)]

    def _ranked(self, query: str, limit: int, server: str | None) -> list[int]:
        merged = [
            self._merge(word) if (found := self._merged.get(word)) is None else found
            for word in dict.fromkeys(stems(query)[:_MAX_WORDS])
        ]
        merged.sort(key=len, reverse=True)
        scores = merged[0].copy() if merged else {}  # of the commonest word, which is less work than adding it up
        known = scores.get
        for each in merged[1:]:
            for number, score in each.items():
                scores[number] = known(number, 0.0) + score
        pairs: Iterable[tuple[int, float]] = scores.items()
        if server is not None:
            pairs = [pair for pair in pairs if self.documents[pair[0]].target.server.name == server]
        return [number for number, _ in heapq.nlargest(limit, pairs, key=_SCORE)]  # of equals the first stays first

    def _merge(self, word: str) -> dict[int, float]:
        """What a word of a query adds to each tool, for the tools to which it adds most."""
        own = self._postings.get(word, _NOWHERE)
        best: dict[int, float] = {}
        for kin, weight in KIN.get(word, {}).items():
            for number, score in self._postings.get(kin, _NOWHERE).pairs():
                if weight * score > best.get(number, 0.0):
                    best[number] = weight * score
        rarity = self._rarity(len(best.keys() | set(own.tools)))  # of the word and its kin as one
        best = {number: rarity * score for number, score in best.items()}
        rarity = self._rarity(len(own.tools))
        for number, score in own.pairs():
            best[number] = max(best.get(number, 0.0), rarity * score)
        for number in self._by_server.get(word, ()):
            best[number] = best.get(number, 0.0) + _OF_SERVER
        for kin, weight in KIN.get(word, {}).items():
            for number in self._by_server.get(kin, ()):
                best[number] = best.get(number, 0.0) + weight * _OF_SERVER
        merged = dict(sorted(heapq.nlargest(_MAX_POSTINGS, best.items(), key=_SCORE)))
        if len(self._merged) < _MAX_MERGED:
            self._merged[word] = merged
        return merged


_STEMMER = Stemmer.Stemmer("english")


def stems(text: str) -> list[str]:
    """The stems of a text's words, without stop words."""
    words = [word for word in map(str.lower, _WORD.findall(text)) if word not in STOP_WORDS]
    return [str(word) for word in _STEMMER.stemWords(words)]


def _fields(document: Document, stem: Any) -> dict[str, Words]:
    item = document.item

    def words(text: object) -> Words:
        if not isinstance(text, str):
            return {}
        lower = [word for word in map(str.lower, _WORD.findall(text[:_MAX_TEXT])) if word not in STOP_WORDS]
        return dict(Counter(stem(lower)))

    schema = item.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    annotations = item.get("annotations")
    title = item.get("title") or (annotations.get("title") if isinstance(annotations, Mapping) else None)
    return {
        "name": words(item["name"]),
        "title": words(title),
        "server": words(document.server),
        "description": words(item.get("description")),
        "arguments": words(" ".join(properties) if isinstance(properties, Mapping) else ""),
    }
