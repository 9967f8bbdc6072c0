import sys
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import SettingsError
from gateway.model import word_vectors
from gateway.model.semantic_index import SemanticIndex
from gateway.model.tool_index import Document, ToolIndex
from gateway.model.word_vectors import WordVectors


@pytest.fixture(scope="module")
def vectors() -> WordVectors:
    if find_spec("wordllama") is None:
        pytest.skip("there is no wheel of wordllama for this machine")
    return WordVectors()


def document(name: str, description: str = "", server: str = "s") -> Document:
    target: Any = SimpleNamespace(server=SimpleNamespace(name=server), shown=name)
    return Document(f"{server}__{name}", server, {"name": name, "description": description}, target)


def built(index: ToolIndex, former: ToolIndex | None = None) -> ToolIndex:
    for _ in index.build(former):
        pass
    return index


TOOLS = (
    document("create_invoice", "Writes an invoice for a customer."),
    document("play_song", "Plays a song on the loudspeakers.", "home"),
    document("weather", "Tells the temperature and whether it will rain.", "home"),
    document("search_flights", "Finds airplane connections between two airports."),
)


def test_vectors_of_like_meaning_are_near(vectors: WordVectors) -> None:
    [cat, kitten, tax] = (vectors.of(text) for text in ("a cat", "a kitten", "income tax return"))
    assert cat @ cat == pytest.approx(1, abs=1e-3)
    assert cat @ kitten > 0.5 > cat @ tax
    assert not vectors.of("").any()


def test_a_tool_is_found_without_a_word_in_common(vectors: WordVectors) -> None:
    query = "melody"
    assert built(ToolIndex(TOOLS)).search(query, 3) == []
    assert built(SemanticIndex(TOOLS, vectors)).search(query, 3)[0].name == "home__play_song"


def test_words_still_decide_where_there_are_some(vectors: WordVectors) -> None:
    index = built(SemanticIndex(TOOLS, vectors))
    assert [index.search(query, 1)[0].name for query in ("invoice", "flights", "song")] == [
        "s__create_invoice",
        "s__search_flights",
        "home__play_song",
    ]


def test_a_server_s_tools_alone(vectors: WordVectors) -> None:
    index = built(SemanticIndex(TOOLS, vectors))
    found = index.search("melody", 8, "home")
    assert found[0].name == "home__play_song"
    assert {each.server for each in found} == {"home"}
    assert index.search("melody", 8, "nobody") == []
    assert len(index.search("a flight, a song and the weather", 2)) == 2


def test_what_is_unlike_is_left_out(vectors: WordVectors) -> None:
    index = built(SemanticIndex(TOOLS, vectors))
    assert "s__create_invoice" not in [each.name for each in index.search("melody", 8)]
    assert index.search("", 8) == []


def test_what_was_read_goes_on(vectors: WordVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    former = built(SemanticIndex(TOOLS[:3], vectors))
    read: list[str] = []
    of = vectors.of
    monkeypatch.setattr(vectors, "of", lambda text: read.append(text) or of(text))  # type: ignore[func-returns-value]
    index = built(SemanticIndex((TOOLS[3], *TOOLS[:3]), vectors), former)
    assert [each.split()[1] for each in read] == ["search_flights"]
    assert index.search("melody", 1)[0].name == "home__play_song"


def test_no_tools_and_wrong_definitions(vectors: WordVectors) -> None:
    assert built(SemanticIndex((), vectors)).search("song", 8) == []
    odd = document("x")
    wrong = Document(odd.name, odd.server, {"name": "x", "description": 5, "title": None}, odd.target)
    assert built(SemanticIndex((wrong,), vectors)).search("x", 8) == [wrong]
    built(SemanticIndex(TOOLS, vectors)).search("\0\ud83d" * 500, 8)


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(SettingsError, match=r"pip install 'mcp-micro-gateway\[semantic\]'"):
        WordVectors()


def test_another_table_is_refused(vectors: WordVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_vectors, "_TABLE", "weights/other.safetensors")
    with pytest.raises(SettingsError, match="can't read wordllama's table"):
        WordVectors()
