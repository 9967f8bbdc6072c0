from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.errors import AmbiguousName, ServerDisabled, UnknownPrompt, UnknownResource, UnknownServer, UnknownTool
from gateway.model.catalogue import Catalogue
from gateway.model.grants import NOTHING, read_grants
from gateway.model.server import Offers, Server, ServerSpec
from gateway.model.uri_templates import UriTemplate
from gateway.model.view import View

BORN = datetime(2026, 1, 1, tzinfo=UTC)


def server(name: str, *tools: str, age: int = 0, url: str | None = None, **spec: Any) -> Server:
    offers = Offers(
        version="2025-11-25",
        tools=tuple({"name": tool, "inputSchema": {}} for tool in tools),
        resources=({"uri": f"{name}://one", "name": "one"},),
        templates=({"uriTemplate": f"{name}://item/{{id}}", "name": "item"},),
    )
    names = {
        "tools": {tool: f"{name}__{tool}" for tool in tools},
        "resources": {f"{name}://one": f"{name}://one"},
        "templates": {f"{name}://item/{{id}}": f"{name}://item/{{id}}"},
    }
    born = BORN - timedelta(days=age)
    return Server(
        ServerSpec(name, url or f"http://{name}/", **spec), 1, born, born, "ready", offers=offers, names=names
    )


def catalogue(*servers: Server) -> Catalogue:
    return Catalogue().apply(1, servers, frozenset(each.name for each in servers))


def view(*servers: Server, **grants: Any) -> View:
    return catalogue(*servers).view(read_grants(grants) if grants else None)


def test_public_and_bare_names_lead_to_the_tool() -> None:
    both = view(server("a", "x"), server("b", "y"))
    assert both.tool("a__x").local == "x"
    assert both.tool("y").server.name == "b"
    with pytest.raises(UnknownTool):
        both.tool("z")


def test_a_bare_name_of_several_servers_is_ambiguous_and_says_who() -> None:
    with pytest.raises(AmbiguousName) as refusal:
        view(server("a", "x"), server("b", "x")).tool("x")
    assert refusal.value.facts["candidates"] == ["a__x", "b__x"]


def test_one_upstream_under_two_names_is_not_ambiguous_and_the_oldest_serves() -> None:
    twins = view(server("a", "x", url="http://h/"), server("b", "x", url="http://h/", age=1))
    assert twins.tool("x").server.name == "b"


def test_who_may_not_see_a_server_finds_nothing() -> None:
    one = catalogue(server("a", "x")).view(NOTHING)
    for look in (
        lambda: one.tool("a__x"), lambda: one.tool("x"), lambda: one.resource("a://one"),
        lambda: one.resource("a://item/3"), lambda: one.server("a"),
        lambda: one.resource("mcp-gateway://a/a://one"),
    ):  # fmt: skip
        with pytest.raises((UnknownTool, UnknownResource, UnknownServer)):
            look()
    assert one.items("tools") == []
    assert one.known() == []


def test_a_disabled_server_offers_nothing() -> None:
    off = view(server("a", "x", enabled=False))
    with pytest.raises(UnknownTool):
        off.tool("x")
    with pytest.raises(ServerDisabled):
        off.tool("a__x")
    with pytest.raises(ServerDisabled):
        off.enabled_server("a")
    assert off.items("tools") == []


def test_a_resource_is_found_by_table_by_template_and_by_its_explicit_name() -> None:
    one = view(server("a"))
    assert one.resource("a://one").local == "a://one"
    assert one.resource("a://item/7").local == "a://item/7"
    assert one.resource("mcp-gateway://a/a://item/7").local == "a://item/7"
    with pytest.raises(UnknownResource) as refusal:
        one.resource("a://item/7/8")
    assert refusal.value.data == {"uri": "a://item/7/8"}
    with pytest.raises(UnknownPrompt):
        one.prompt("p")


def test_lists_are_sorted_by_public_name() -> None:
    names = [item["name"] for _, item in view(server("b", "x"), server("a", "z", "y")).items("tools")]
    assert names == ["a__y", "a__z", "b__x"]


def test_the_next_snapshot_forgets_what_is_gone_and_leaves_the_old_one_alone() -> None:
    old = catalogue(server("a", "x"), server("b", "y"))
    new = old.apply(2, [server("c", "z")], frozenset({"b", "c"}))
    assert sorted(new.servers) == ["b", "c"]
    assert sorted(old.servers) == ["a", "b"]


@pytest.mark.parametrize(
    ("template", "uri", "matches"),
    [
        ("x://a", "x://a", True),
        ("x://{id}/data", "x://5/data", True),
        ("x://{id}/data", "x:///data", False),
        ("x://{id}/data", "x://5/6/data", False),
        ("x://{+path}", "x://5/6/data", True),
        ("x://a{?q}", "x://a", True),
        ("x://a{?q}", "x://a?q=1", True),
        ("x://{a}-{b}", "x://1-2", True),
        ("x://{a}-{b}", "x://1-", False),
        ("x://{a}{b}", "x://12", True),
        ("y://{a}", "x://1", False),
    ],
)
def test_a_template_matches_what_it_can_expand_to(template: str, uri: str, matches: bool) -> None:
    assert UriTemplate(template).matches(uri) is matches


def test_a_hostile_template_costs_linear_time() -> None:
    hostile = UriTemplate("x" + "{+a}x" * 2_000)
    assert not hostile.matches("x" * 20_000 + "y")


def test_an_invisible_servers_resource_does_not_hide_anothers_template() -> None:
    uri = "shown://item/1"
    hidden = server("hidden")
    hidden = replace(
        hidden,
        offers=replace(hidden.offers, resources=({"uri": uri, "name": "x"},)),
        names={**hidden.names, "resources": {uri: uri}},
    )
    seen = view(hidden, server("shown"), allow=[{"servers": ["shown"]}])
    assert seen.resource(uri).server.name == "shown"


def test_the_narrower_template_comes_before_the_wider_whoever_was_first() -> None:
    def with_template(name: str, template: str, age: int) -> Server:
        made = server(name, age=age)
        return replace(
            made,
            offers=replace(made.offers, templates=({"uriTemplate": template, "name": "t"},)),
            names={**made.names, "templates": {template: template}},
        )

    both = view(with_template("greedy", "{+x}", 2), with_template("db", "db://{id}", 1), server("b"))
    assert both.resource("db://7").server.name == "db"
    assert both.resource("b://one").server.name == "b"
    assert both.resource("else://where").server.name == "greedy"
