from types import SimpleNamespace
from typing import Any

import pytest

from gateway.model import tool_index
from gateway.model.tool_index import Document, ToolIndex, stems
from gateway.model.word_kin import KIN


def document(name: str, description: str = "", server: str = "s", **more: Any) -> Document:
    target: Any = SimpleNamespace(server=SimpleNamespace(name=server))
    return Document(f"{server}__{name}", server, {"name": name, "description": description, **more}, target)


def index(*documents: Document, former: ToolIndex | None = None) -> ToolIndex:
    made = ToolIndex(documents)
    for _ in made.build(former):
        pass
    return made


def names(index: ToolIndex, query: str, limit: int = 8, server: str | None = None) -> list[str]:
    return [found.name for found in index.search(query, limit, server)]


def test_words_are_split_at_case_digits_and_underscores() -> None:
    assert stems("listAllHTTPHeaders_v2") == ["list", "http", "header", "v", "2"]
    assert stems("get-user.byId") == ["get", "user", "id"]
    assert stems("Ärger über Überweisungen") == stems("Ärger über überweisungen") != []


def test_the_rarer_word_and_the_name_count_more() -> None:
    made = index(
        document("list_pages", "Lists the pages of a book."),
        document("list_books", "Lists books."),
        document("read_page", "Reads one page, also of a book that was lent."),
    )
    assert names(made, "list books")[0] == "s__list_books"
    assert names(made, "lent")[0] == "s__read_page"
    assert names(made, "zebra") == []
    assert names(made, "") == []


def test_kin_finds_what_has_another_word_and_the_word_itself_comes_first() -> None:
    made = index(document("remove_file"), document("delete_file"), document("move_file"))
    assert names(made, "erase the file")[-1] == "s__move_file"
    assert names(made, "delete a file")[0] == "s__delete_file"
    assert stems("remove")[0] in KIN[stems("erase")[0]]


def test_a_word_and_its_kin_count_once() -> None:
    """A tool that has all words of a group is not better than one that has the word of the query."""
    made = index(
        document("delete_thing"), document("drop_thing", "remove erase clear purge destroy discard trash wipe")
    )
    assert names(made, "delete")[0] == "s__delete_thing"


def test_arguments_titles_and_servers_are_looked_at() -> None:
    made = index(
        document("a", inputSchema={"properties": {"latitude": {}}}),
        document("b", title="Ocean tides"),
        document("c", annotations={"title": "Moon phases"}),
        document("d", server="astronomy"),
        document("e", inputSchema=None, description=None),  # type: ignore[arg-type]
    )
    assert names(made, "latitude") == ["s__a"]
    assert names(made, "tides") == ["s__b"]
    assert names(made, "moon") == ["s__c"]
    assert names(made, "astronomy") == ["astronomy__d"]


def test_only_one_servers() -> None:
    made = index(document("read", server="a"), document("read", server="b"))
    assert names(made, "read", server="b") == ["b__read"]
    assert len(names(made, "read", limit=1)) == 1


def test_what_was_read_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = document("one", "first"), document("two", "second")
    former = index(one, two)
    read: list[str] = []
    fields = tool_index._fields

    def reading(document: Document, stem: Any) -> Any:
        read.append(document.name)
        return fields(document, stem)

    monkeypatch.setattr(tool_index, "_fields", reading)
    made = index(one, document("three", "third"), former=former)
    assert read == ["s__three"]
    assert names(made, "first") == ["s__one"]


def test_a_long_description_and_query_cost_a_bounded_time() -> None:
    made = index(*(document(f"tool_{number}", "word " * 50_000) for number in range(3)))
    assert len(names(made, "word " * 10_000)) == 3
    assert sum(sum(words["description"].values()) for _, words in made._read.values()) < 3_000
