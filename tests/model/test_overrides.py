from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidParams
from gateway.model.override_fields import for_another_upstream, read_overrides, read_overrides_of_servers
from gateway.model.overrides import Misfit, apply, claims_more, merged

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "q": {"type": "string", "description": "what for"},
        "limit": {"$ref": "#/$defs/count"},
        "tenant": {"type": "string"},
        "deep": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
    },
    "required": ["q", "tenant"],
    "additionalProperties": False,
    "$defs": {"count": {"type": "integer", "minimum": 1}},
}
TOOL: dict[str, Any] = {
    "name": "search",
    "description": "Searches.",
    "inputSchema": SCHEMA,
    "outputSchema": {"type": "object"},
}


def over(**arguments: Any) -> dict[str, Any]:
    return read_overrides({"search": {"arguments": arguments}})["search"]


def test_what_is_not_overridden_is_as_the_server_says() -> None:
    found = apply(
        TOOL, read_overrides({"search": {"name": "find", "title": "Find", "description": "Finds."}})["search"]
    )
    assert found.item == {**TOOL, "name": "find", "title": "Find", "description": "Finds."}
    assert found.item["inputSchema"] is SCHEMA
    assert found.rewrite is None


def test_arguments_are_renamed_described_given_and_hidden() -> None:
    found = apply(
        TOOL,
        over(
            q={"name": "query", "description": "words"}, limit={"default": 10}, tenant={"value": "acme", "hide": True}
        ),
    )
    schema = found.item["inputSchema"]
    assert schema["properties"] == {
        "query": {"type": "string", "description": "words"},
        "limit": {"$ref": "#/$defs/count", "default": 10},
        "deep": SCHEMA["properties"]["deep"],
    }
    assert schema["required"] == ["query"]
    assert (schema["additionalProperties"], schema["$defs"]) == (False, SCHEMA["$defs"])
    assert SCHEMA["properties"].keys() == {"q", "limit", "tenant", "deep"}  # the server's is as it was
    rewrite = found.rewrite
    assert rewrite is not None
    assert rewrite.outward({"query": "x"}) == {"q": "x", "limit": 10, "tenant": "acme"}
    assert rewrite.outward({"query": "x", "limit": 3, "extra": 1}) == {
        "q": "x",
        "limit": 3,
        "extra": 1,
        "tenant": "acme",
    }
    assert rewrite.outward(None) == {"limit": 10, "tenant": "acme"}
    for name in ("q", "tenant"):
        with pytest.raises(InvalidParams, match=f"no argument '{name}'"):
            rewrite.outward({name: "x"})


def test_a_fixed_value_that_is_seen_takes_no_other() -> None:
    found = apply(TOOL, over(tenant={"value": "acme"}))
    assert found.item["inputSchema"]["properties"]["tenant"] == {"type": "string", "const": "acme"}
    assert found.item["inputSchema"]["required"] == ["q"]
    rewrite = found.rewrite
    assert rewrite is not None
    assert rewrite.outward({"q": "x", "tenant": "acme"})["tenant"] == rewrite.outward({"q": "x"})["tenant"] == "acme"
    with pytest.raises(InvalidParams, match="has a fixed value"):
        rewrite.outward({"tenant": "other"})


def test_two_arguments_may_change_names() -> None:
    found = apply(TOOL, over(q={"name": "tenant"}, tenant={"name": "q"}))
    assert list(found.item["inputSchema"]["properties"]) == ["tenant", "limit", "q", "deep"]
    assert sorted(found.item["inputSchema"]["required"]) == ["q", "tenant"]
    assert found.rewrite is not None
    assert found.rewrite.outward({"q": "t", "tenant": "w"}) == {"tenant": "t", "q": "w"}


def test_required_may_be_more_and_with_a_value_less() -> None:
    assert apply(TOOL, over(limit={"required": True})).item["inputSchema"]["required"] == ["q", "tenant", "limit"]
    found = apply(TOOL, over(q={"default": "x", "required": True}, tenant={"default": "acme"}))
    assert found.item["inputSchema"]["required"] == ["q"]


@pytest.mark.parametrize(
    ("arguments", "at"),
    [
        ({"nope": {"description": "x"}}, "arguments.nope"),
        ({"tenant": {"hide": True}}, "arguments.tenant.hide"),
        ({"tenant": {"required": False}}, "arguments.tenant.required"),
        ({"q": {"name": "limit"}}, "arguments.q.name"),
        ({"q": {"name": "x"}, "limit": {"name": "x"}}, "arguments.limit.name"),
    ],
)
def test_what_does_not_fit_says_where(arguments: dict[str, Any], at: str) -> None:
    with pytest.raises(Misfit) as error:
        apply(TOOL, over(**arguments))
    assert error.value.at in (at, at.replace("q.name", "limit.name"))


@pytest.mark.parametrize(
    "more",
    [
        {"allOf": [{"properties": {"q": {"minLength": 1}}}]},
        {"anyOf": [{"required": ["q"]}, {"required": ["limit"]}]},
        {"if": {"required": ["q"]}, "then": {"required": ["limit"]}},
        {"dependentRequired": {"limit": ["q"]}},
        {"dependentSchemas": {"q": {"required": ["limit"]}}},
        {"patternProperties": {"^q": {"type": "string"}}},
        {"propertyNames": {"maxLength": 6}},
        {"$ref": "#/$defs/whole"},
        {"$defs": {"count": {}, "same": {"$ref": "#/properties/q"}}},
    ],
)
def test_an_argument_that_the_schema_names_elsewhere_keeps_its_name(more: dict[str, Any]) -> None:
    tool = {**TOOL, "inputSchema": {**SCHEMA, **more}}
    for override in ({"name": "query"}, {"value": "x", "hide": True}):
        with pytest.raises(Misfit, match="the schema speaks of it in"):
            apply(tool, over(q=override))
    apply(tool, over(q={"description": "words", "default": "x"}))


def test_hints_claim_no_more_than_the_server() -> None:
    override = read_overrides({"search": {"annotations": {"readOnlyHint": True, "openWorldHint": False}}})["search"]
    tool = {**TOOL, "annotations": {"title": "S", "openWorldHint": False}}
    assert claims_more(tool, override) == ["readOnlyHint"]
    assert apply(tool, override).item["annotations"] == {"title": "S", "openWorldHint": False}
    trusted = {**override, "trust": True}
    assert apply(tool, trusted).item["annotations"]["readOnlyHint"] is True
    doubted = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": True}
    assert claims_more(tool, override, doubted) == ["readOnlyHint", "openWorldHint"]


def test_a_toolsets_override_comes_on_top() -> None:
    below = {"name": "find", "arguments": {"q": {"name": "query"}, "limit": {"default": 1}}, "annotations": {"a": True}}
    above = {"title": "T", "arguments": {"q": {"description": "d"}, "tenant": {"value": 1}}, "annotations": {"b": True}}
    assert merged(below, above) == {
        "name": "find",
        "title": "T",
        "annotations": {"a": True, "b": True},
        "arguments": {"q": {"name": "query", "description": "d"}, "limit": {"default": 1}, "tenant": {"value": 1}},
    }
    assert merged(None, above) is above
    assert merged({"trust": True, "annotations": {"a": True}}, {"annotations": {"b": True}})["trust"] is False


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ([], "overrides"),
        ({"t": 1}, "overrides.t"),
        ({"t": {"colour": 1}}, "overrides.t.colour"),
        ({"t": {"name": "a b"}}, "overrides.t.name"),
        ({"t": {"enabled": 1}}, "overrides.t.enabled"),
        ({"t": {"annotations": {"readOnlyHint": 1}}}, "overrides.t.annotations.readOnlyHint"),
        ({"t": {"annotations": {"title": "x"}}}, "overrides.t.annotations.title"),
        ({"t": {"arguments": {"a": {"colour": 1}}}}, "overrides.t.arguments.a.colour"),
        ({"t": {"arguments": {"a": {"value": 1, "default": 2}}}}, "overrides.t.arguments.a.default"),
        ({"t": {"arguments": {"a": {"hide": True, "name": "b"}}}}, "overrides.t.arguments.a.name"),
        ({"t": {"arguments": {"a": {"value": "${env:GATEWAY_VALUE_X}"}}}}, "overrides.t.arguments.a.hide"),
        ({"t": {"name": "x"}, "u": {"name": "x"}}, "overrides.u.name"),
        ({"t": {"description": "x" * 16_001}}, "overrides.t.description"),
        ({"": {}}, "overrides"),
        ({str(number): {} for number in range(2_001)}, "overrides"),
        ({str(number): {"description": "x" * 15_000} for number in range(40)}, "overrides"),
    ],
)
def test_fields_that_are_wrong(value: Any, at: str) -> None:
    with pytest.raises(InvalidParams) as error:
        read_overrides(value)
    assert error.value.facts["field"] == at


def test_in_a_toolset_one_name_is_one_tools_of_all_servers() -> None:
    with pytest.raises(InvalidParams, match=r"would both be named 'x'"):
        read_overrides_of_servers({"a": {"t": {"name": "x"}}, "b": {"u": {"name": "x"}}})


def test_secrets_are_not_carried_to_another_upstream() -> None:
    read = read_overrides(
        {"t": {"arguments": {"a": {"hide": True, "value": {"k": ["${env:GATEWAY_VALUE_X}"]}}, "b": {"value": 1}}}}
    )
    assert for_another_upstream(read) == {"t": {"arguments": {"a": {"hide": True}, "b": {"value": 1}}}}


NAMES = st.sampled_from(["q", "limit", "tenant", "deep", "new"])
ARGUMENT: Any = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["q", "query", "limit", "n"]),
        "description": st.text(max_size=5),
        "default": st.sampled_from(["x", 1, None, {}]),
        "hide": st.booleans(),
        "required": st.booleans(),
    },
)


@given(
    st.dictionaries(NAMES, ARGUMENT, max_size=4),
    st.dictionaries(st.sampled_from(["q", "query", "n", "limit", "tenant"]), st.integers()),
)
@settings(max_examples=300, deadline=None)
def test_what_callers_see_is_a_schema_and_what_the_server_gets_is_what_it_knows(
    arguments: dict[str, Any], sent: dict[str, Any]
) -> None:
    try:
        found = apply(TOOL, over(**arguments))
    except (Misfit, InvalidParams):
        return
    schema = found.item["inputSchema"]
    jsonschema_rs.meta.validate(schema)
    assert set(schema["required"]) <= set(schema["properties"])
    assert len(set(schema["required"])) == len(schema["required"])
    if found.rewrite is None:
        return
    try:
        outward = found.rewrite.outward({name: value for name, value in sent.items() if name in schema["properties"]})
    except InvalidParams:
        return
    assert set(outward) <= set(SCHEMA["properties"])
