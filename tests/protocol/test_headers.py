"""Headers by name: the first of those that are repeated, and which must not be."""

import pytest

from gateway.errors import HeaderMismatch
from gateway.protocol.headers import Headers

ONCE = Headers([(b"host", b"x"), (b"accept", b"a")])
TWICE = Headers([(b"accept", b"a"), (b"host", b"x"), (b"accept", b"\xe9")])


def test_a_header_is_found_as_text_and_as_it_came() -> None:
    assert (ONCE.get(b"accept"), ONCE.get(b"other"), ONCE.get(b"other", "-")) == ("a", "", "-")
    assert (ONCE.values.get(b"accept"), ONCE.values.get(b"other")) == (b"a", None)
    assert TWICE.values == {b"accept": b"a", b"host": b"x"}


def test_of_repeated_ones_the_first_counts_and_all_are_there() -> None:
    assert (TWICE.get(b"accept"), TWICE.all(b"accept"), TWICE.raw_value(b"accept")) == ("a", ["a", "é"], b"a,\xe9")
    assert (ONCE.all(b"accept"), ONCE.all(b"other"), ONCE.raw_value(b"other"), TWICE.raw_value(b"other")) == (
        ["a"], [], None, None,
    )  # fmt: skip


def test_what_must_come_once_is_refused_otherwise() -> None:
    TWICE.check_once({b"host"})
    with pytest.raises(HeaderMismatch, match="accept"):
        TWICE.check_once({b"host", b"accept"})
