from hypothesis import given
from hypothesis import strategies as st

from gateway.model.names import Naming, assign, server_of_uri

A = Naming("a", "a", "__", 128)


def test_the_prefix_comes_always_and_can_be_switched_off() -> None:
    assert A.name("tool") == "a__tool"
    assert Naming("a", "", "__", 128).name("tool") == "tool"
    assert Naming("a", "team", "-", 128).name("tool") == "team-tool"


def test_two_ways_to_one_name_end_with_a_suffix_for_the_later() -> None:
    first = assign(Naming("a", "a", "__", 128), "tools", ["b__c"], {}, lambda name: False)
    taken = set(first.values())
    second = assign(Naming("a__b", "a__b", "__", 128), "tools", ["c"], {}, taken.__contains__)
    assert first == {"b__c": "a__b__c"}
    assert second["c"].startswith("a__b__c_")


def test_what_was_assigned_before_is_kept() -> None:
    assert assign(A, "tools", ["x", "y"], {"x": "old"}, lambda name: False) == {"x": "old", "y": "a__y"}


def test_a_long_name_is_cut_the_same_way_everywhere() -> None:
    naming = Naming("server", "server", "__", 64)
    names = {naming.name("t" * 200 + end) for end in "ab"}
    assert len(names) == 2
    assert {len(name) for name in names} == {64}
    assert names == {naming.name("t" * 200 + end) for end in "ab"}


def test_a_uri_stays_as_it_is_until_somebody_else_has_it() -> None:
    assert assign(A, "resources", ["file:///x"], {}, lambda name: False) == {"file:///x": "file:///x"}
    assigned = assign(A, "resources", ["file:///x"], {}, {"file:///x"}.__contains__)
    assert assigned == {"file:///x": "mcp-gateway://a/file:///x"}
    assert server_of_uri(assigned["file:///x"]) == ("a", "file:///x")


@given(st.lists(st.text(min_size=1), max_size=20), st.integers(32, 80))
def test_names_are_unique_within_bounds_and_stable(locals: list[str], limit: int) -> None:
    naming = Naming("s", "s", "__", limit)
    assigned = assign(naming, "tools", locals, {}, lambda name: False)
    assert len(set(assigned.values())) == len(assigned)
    assert all(len(name) <= limit for name in assigned.values())
    assert assign(naming, "tools", reversed(locals), assigned, set(assigned.values()).__contains__) == assigned
