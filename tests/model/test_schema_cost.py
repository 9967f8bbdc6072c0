from typing import Any

import pytest

from gateway.model.schema_cost import Cost, NotCountable, cost


def doubling(levels: int, where: str = "allOf") -> dict[str, Any]:
    """A schema in which each level refers to the next one twice."""
    defs: dict[str, Any] = {
        f"a{level}": {where: [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(levels)
    }  # fmt: skip
    return {"$ref": "#/$defs/a0", "$defs": {**defs, f"a{levels}": {"type": "object"}}}


def test_a_plain_schema_costs_what_it_has() -> None:
    found = cost({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}})
    assert (found.unfolded, found.in_place) == (4, 1)


def test_doubled_references_double_the_cost() -> None:
    assert cost(doubling(30)).unfolded > 2**30
    assert cost(doubling(30)).in_place > 2**30
    assert cost(doubling(4)).in_place < 200


def test_children_are_another_place() -> None:
    nested: dict[str, Any] = {"properties": {"a": {"properties": {"b": {"allOf": [{}, {}, {}]}}}}}
    assert cost(nested).in_place < 8


@pytest.mark.parametrize(
    "schema", [{"$ref": "#"}, {"properties": {"c": {"$ref": "#"}}}, {"anyOf": [{"$ref": "#"}] * 3}]
)
def test_a_schema_that_refers_to_itself_is_counted(schema: dict[str, Any]) -> None:
    assert cost(schema).unfolded < 20


def test_what_is_data_is_no_schema() -> None:
    assert cost({"enum": [{"$ref": "#/nowhere"}], "default": {"a": [1] * 1000}}) == Cost(1, 1)


@pytest.mark.parametrize("reference", ["#/$defs/none", "other.json", "#anchor", "https://example.org/x", "#/a/0"])
def test_a_reference_that_leads_elsewhere_can_not_be_counted(reference: str) -> None:
    with pytest.raises(NotCountable):
        cost({"$ref": reference})


def test_a_long_chain_of_references_is_refused_and_does_no_harm() -> None:
    chain = {f"a{level}": {"$ref": f"#/$defs/a{level + 1}"} for level in range(100_000)}
    with pytest.raises(NotCountable):
        cost({"$ref": "#/$defs/a0", "$defs": chain})
