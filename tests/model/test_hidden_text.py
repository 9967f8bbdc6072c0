"""What a person does not see in a text, and names that look alike."""

import pytest

from gateway.model.hidden_text import hidden, in_one_line, skeleton, visible


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a\u200bb", "zero-width character U+200B"),
        ("\u202eabc", "bidirectional mark U+202E"),
        ("x\U000e0041", "tag character U+E0041"),
        ("\U0001f3f4\U000e0067", "tag character U+E0067"),
        ("a\ufe01", "variation selector U+FE01"),
        ("x\ufe0f", "variation selector U+FE0F"),
        ("a\U000e0100", "variation selector U+E0100"),
        ("a\u200db", "zero-width character U+200D"),
        ("a\u180f", "variation selector U+180F"),
        ("v1\ufe0f2", "variation selector U+FE0F"),
        ("a\u2065b", "zero-width character U+2065"),
        ("a\ufff0", "zero-width character U+FFF0"),
        ("a\U0001bca0", "zero-width character U+1BCA0"),
        ("a\U000e0fff", "zero-width character U+E0FFF"),
        ("\U0001f3f4\U000e0067\U000e0062\U000e007f", "tag character U+E0067"),
        ("\x1b[2J", "control character U+001B"),
        ("a\u2028b", "control character U+2028"),
    ],
)
def test_what_is_not_seen_is_found_and_spelled_out(text: str, what: str) -> None:
    found = hidden(text)
    assert found is not None
    at, said = found
    assert said == what
    assert f"<{what.rpartition(' ')[2]}>" in visible(text)
    assert hidden(text[:at]) is None


@pytest.mark.parametrize(
    "text",
    ["plain", "two\n\tlines\r\n", "\u26a0\ufe0f caution", "\U0001f469\u200d\U0001f4bb", "1\ufe0f\u20e3", "é",
     "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0915\u094d\u200d\u0937", "\u2764\ufe0f\u200d\U0001f525",
     "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"],
)  # fmt: skip
def test_what_scripts_and_pictures_need_is_not_hidden(text: str) -> None:
    assert hidden(text) is None


def test_a_place_further_on_is_found() -> None:
    text = "\u26a0\ufe0f" * 10 + "a\u200b"
    assert hidden(text) == (21, "zero-width character U+200B")
    assert hidden(text, 0, 20) is None
    assert hidden(text, 21) == (21, "zero-width character U+200B")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("search", "s\u0435arch"),
        ("search", "Search"),
        ("list", "1ist"),
        ("all", "aII"),
        ("modem", "modern"),
        ("search", "\uff53earch"),
        ("search", "séarch"),
        ("search", "sea\u200brch"),
        ("file_0", "file_O"),
    ],
)
def test_names_that_can_be_taken_for_one_another_look_the_same(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("search", "research"),
        ("create_issue", "createIssue"),
        ("get", "set"),
        ("\u043f\u043e\u0438\u0441\u043a", "search"),
    ],
)
def test_other_names_do_not(one: str, other: str) -> None:
    assert skeleton(one) != skeleton(other)


def test_a_name_can_not_pass_for_another_line() -> None:
    assert in_one_line("a\nb\tc\rd\x1b[2J") == "a<U+000A>b<U+0009>c<U+000D>d<U+001B>[2J"


def test_long_names_are_looked_at_to_a_bound() -> None:
    assert len(skeleton("\ufdfa" * 4_000)) <= 256
