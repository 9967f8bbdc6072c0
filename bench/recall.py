"""Does the tool search find the tool? Recall of the queries in `recall/`, beside plain BM25; and what lists cost.

`python -m bench.recall` prints the half that rankings are tuned on; `--final` prints the other half, which decides.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import Stemmer

from gateway.errors import SettingsError
from gateway.model.meta_tools import definitions, names_of
from gateway.model.parts import Target
from gateway.model.semantic_index import SemanticIndex
from gateway.model.server import Server, ServerSpec
from gateway.model.tokens import tokens_of
from gateway.model.tool_index import Document, ToolIndex
from gateway.model.word_vectors import WordVectors
from gateway.protocol.messages import dump

HERE = Path(__file__).parent / "recall"
TOP = 3
_STOP_TEXT = (
    "a an and are as at be been but by can could did do does doing for from had has have how i if in into is it its "
    "itself me my of on or our ours she he her him his that the their them then there these they this those to too up "
    "was we were what when where which while who whom why will with would you your am any all not no so than s t m re "
    "ve d don doesn didn isn aren dont didnt im ive whats after before over under out off again just now here one "
    "some every each other own more most very"
)
_STOP = frozenset(_STOP_TEXT.split())

Search = Callable[[str, int], Sequence[str]]
Figures = dict[str, Any]


def load() -> tuple[list[Document], list[dict[str, Any]]]:
    """The tools as a catalogue has them, and the queries."""
    documents = []
    for file in sorted((HERE / "tools").glob("*.json")):
        found = json.loads(file.read_text())
        now = datetime.now(UTC)
        server = Server(ServerSpec(found["server"], "http://localhost/"), 1, now, now)
        for item in found["tools"]:
            name = f"{server.name}__{item['name']}"
            documents.append(Document(name, server.name, {**item, "name": name}, Target(server, item["name"])))
    return documents, json.loads((HERE / "queries.json").read_text())["queries"]


def shares_a_word(query: str, tool: str) -> bool:
    """Whether a query has a stemmed word of its target's name."""
    return bool(_words(query) & _words(tool.partition("/")[2]))


def _words(text: str) -> set[str]:
    text = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1 \2", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text))
    stem = Stemmer.Stemmer("english").stemWord
    return {stem(word) for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in _STOP}


def plain_bm25(documents: Sequence[Document]) -> Search:
    """BM25 over name and description as one text, lower case, without stems: what a first try would be."""
    texts = [
        re.findall(r"[a-z0-9]+", f"{each.name} {each.item.get('description') or ''}".lower()) for each in documents
    ]
    average = statistics.mean(map(len, texts))
    postings: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for number, text in enumerate(texts):
        for word, count in Counter(text).items():
            postings[word].append((number, count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(text) / average))))

    def search(query: str, limit: int) -> Sequence[str]:
        scores: defaultdict[int, float] = defaultdict(float)
        for word in re.findall(r"[a-z0-9]+", query.lower()):
            found = postings.get(word, [])
            rarity = math.log(1 + (len(texts) - len(found) + 0.5) / (len(found) + 0.5))
            for number, score in found:
                scores[number] += rarity * score
        return [documents[each].name for each in sorted(scores, key=scores.__getitem__, reverse=True)[:limit]]

    return search


def made(documents: Sequence[Document], vectors: WordVectors | None = None) -> ToolIndex:
    index = ToolIndex(documents) if vectors is None else SemanticIndex(documents, vectors)
    for _ in index.build():
        pass
    return index


def rankings(documents: Sequence[Document]) -> dict[str, Search]:
    """What is compared; the ranking by meaning where its extra is installed."""

    def of(index: ToolIndex) -> Search:
        return lambda query, limit: [each.name for each in index.search(query, limit)]

    found = {"ours": of(made(documents)), "plain BM25": plain_bm25(documents)}
    if (vectors := _vectors()) is not None:
        found["with semantic"] = of(made(documents, vectors))
    return found


def _vectors() -> WordVectors | None:
    try:
        return WordVectors()
    except SettingsError:
        return None


def recall(search: Search, queries: Sequence[dict[str, Any]]) -> Figures:
    """Of how many queries the target, or one that answers as well, is among the first three (or the target alone)."""
    hits: dict[str, list[bool]] = {"all": [], "no shared word": [], "a shared word": [], "target alone": []}
    for query in queries:
        found = search(query["query"], TOP)
        wanted = [each.replace("/", "__", 1) for each in (query["tool"], *query["also"])]
        is_hit = any(each in found for each in wanted)
        hits["all"].append(is_hit)
        hits["a shared word" if shares_a_word(query["query"], query["tool"]) else "no shared word"].append(is_hit)
        hits["target alone"].append(wanted[0] in found)
    return {name: round(statistics.mean(each), 3) for name, each in hits.items() if each}


def us_at_a_thousand(
    documents: Sequence[Document], queries: Sequence[dict[str, Any]], vectors: WordVectors | None = None
) -> float:
    """The median time of a query at 1,000 tools, in microseconds."""
    index, times = made([*documents, *documents][:1000], vectors), list[float]()
    for query in [*queries, *queries]:  # words that were asked for once are merged
        began = time.perf_counter()
        index.search(query["query"], 8)
        times.append(time.perf_counter() - began)
    return round(statistics.median(times[len(queries) :]) * 1e6, 1)


def measured() -> Figures:
    """All figures, of both halves, as `make bench` keeps them."""
    documents, queries = load()
    searches, vectors = rankings(documents), _vectors()
    found: Figures = {
        "tools": len(documents),
        "us_per_query_at_1000_tools": us_at_a_thousand(documents, queries),
        "tokens": {
            "full": sum(tokens_of(each.item) for each in documents),
            "search": sum(map(tokens_of, definitions(names_of({}), len(documents)))),
        },
    }
    for half in ("development", "final"):
        chosen = [query for query in queries if query["half"] == half]
        found[half] = {
            "queries": len(chosen),
            "without_a_shared_word": sum(not shares_a_word(each["query"], each["tool"]) for each in chosen),
            **{name: recall(search, chosen) for name, search in searches.items()},
        }
    if vectors is not None:
        found["us_per_query_with_semantic"] = us_at_a_thousand(documents, queries, vectors)
    return found


def main() -> None:
    documents, queries = load()
    half = "final" if "--final" in sys.argv else "development"
    chosen = [query for query in queries if query["half"] == half]
    index = made(documents)
    print(f"{len(documents)} tools, {len(chosen)} queries of the half '{half}'; recall@{TOP}")
    for name, search in rankings(documents).items():
        print(f"{name + ':':15}", recall(search, chosen))
    print(f"a query at 1,000 tools: {us_at_a_thousand(documents, chosen)} us")
    if (vectors := _vectors()) is not None:
        print(f"a query at 1,000 tools with semantic: {us_at_a_thousand(documents, chosen, vectors)} us")
    few = definitions(names_of({}), len(documents))
    print(f"tokens, estimated: {sum(tokens_of(each.item) for each in documents):,} in full, "
          f"{sum(map(tokens_of, few)):,} in search mode ({len(dump(few)):,} bytes)")  # fmt: skip
    if "-v" in sys.argv:
        for query in chosen:
            found = [each.name for each in index.search(query["query"], 8)]
            wanted = [each.replace("/", "__", 1) for each in (query["tool"], *query["also"])]
            if not any(each in found[:TOP] for each in wanted):
                place = next((number for number, name in enumerate(found, 1) if name in wanted), None)
                print(f"{query['query']!r} wants {query['tool']} ({place}), finds {', '.join(found[:TOP])}")


if __name__ == "__main__":
    main()
