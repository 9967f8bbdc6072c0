import time
from typing import Any

import pytest

from gateway.errors import InvalidParams
from gateway.model.grants import MAX_RULES, Globs, believed, read_grants
from gateway.model.normal_uri import normal_uri


@pytest.mark.parametrize(
    ("glob", "text", "matches"),
    [
        ("docs", "docs", True),
        ("docs", "docs2", False),
        ("team-*", "team-a", True),
        ("team-*", "team-", True),
        ("team-*", "ateam-a", False),
        ("*_debug", "x_debug", True),
        ("*_debug", "x_debug_", False),
        ("a*b*c", "a1b2c", True),
        ("a*b*c", "acb", False),
        ("a*bc*bc", "abc", False),
        ("a*bc*bc", "abcbc", True),
        ("*ab", "aab", True),
        ("*a*a*", "a", False),
        ("s?m", "sum", True),
        ("s?m", "sm", False),
        ("a?*", "a", False),
        ("*", "", True),
        ("a.c", "abc", False),
        ("[a]", "a", False),
        ("a*", "a\nb", True),
    ],
)
def test_a_glob_matches_the_whole_text(glob: str, text: str, matches: bool) -> None:
    assert Globs((glob,)).match(text) is matches


def test_a_glob_that_was_made_to_take_long_takes_as_long_as_any_other() -> None:
    def seconds(glob: str) -> float:
        globs, text = Globs((glob,)), "a" * 2_000
        began = time.perf_counter()
        for _ in range(20):
            globs.match(text)
        return time.perf_counter() - began

    assert seconds("*a" * 100 + "*b") < 200 * seconds("*b") + 0.05


def sees(grants: Any, kind: str, text: str, *, server: str = "docs", tags: tuple[str, ...] = (), **item: Any) -> bool:
    found = read_grants(grants).of_server(server, tags)
    return not found.is_nothing and found.sees(kind, text, item)


NOTHING_DESTRUCTIVE = {"allow": [{"servers": ["*"]}], "deny": [{"annotations": {"destructiveHint": True}}]}
READ_ONLY = {"annotations": {"readOnlyHint": True}}


@pytest.mark.parametrize(
    ("grants", "kind", "text", "item", "expected"),
    [
        (None, "tools", "x", {}, False),
        ({}, "tools", "x", {}, False),
        ({"deny": [{"servers": ["other"]}]}, "tools", "x", {}, False),
        ({"allow": [{"servers": ["docs"]}]}, "tools", "x", {}, True),
        ({"allow": [{"servers": ["docs"]}]}, "prompts", "x", {}, True),
        ({"allow": [{"servers": ["docs"]}]}, "templates", "f:///{x}", {}, True),
        ({"allow": [{"servers": ["d*"], "tools": ["s*"]}]}, "tools", "search", {}, True),
        ({"allow": [{"servers": ["d*"], "tools": ["s*"]}]}, "tools", "fetch", {}, False),
        ({"allow": [{"servers": ["d*"], "tools": ["s*"]}]}, "prompts", "search", {}, False),
        ({"allow": [{"tools": ["s*"], "prompts": ["p*"]}]}, "prompts", "pray", {}, True),
        ({"allow": [{"resources": ["file:///docs/*"]}]}, "resources", "file:///docs/a", {}, True),
        ({"allow": [{"resources": ["file:///docs/*"]}]}, "resources", "file:///docs/../etc", {}, False),
        ({"allow": [{"resources": ["file:///docs/*"]}]}, "resources", "file:///docs/%2e%2E/etc", {}, False),
        ({"allow": [{"resources": ["file:///docs/*"]}]}, "resources", "FILE:///docs/a", {}, True),
        ({"allow": [{"resources": ["file:///docs/*"]}]}, "resources", "file:///%64ocs/a", {}, True),
        ({"allow": [{"tags": ["public"]}]}, "tools", "x", {}, True),
        ({"allow": [{"tags": ["private"]}]}, "tools", "x", {}, False),
        ({"allow": [{"servers": ["docs"], "tags": ["private"]}]}, "tools", "x", {}, False),
        ({"allow": [READ_ONLY]}, "tools", "x", READ_ONLY, True),
        ({"allow": [READ_ONLY]}, "tools", "x", {}, False),
        ({"allow": [READ_ONLY]}, "tools", "x", {"annotations": {"readOnlyHint": "yes"}}, False),
        ({"allow": [READ_ONLY]}, "prompts", "x", READ_ONLY, False),
        ({"allow": [{"servers": ["*"]}], "deny": [{"tools": ["x"]}]}, "tools", "x", {}, False),
        ({"allow": [{"servers": ["*"]}], "deny": [{"tools": ["x"]}]}, "tools", "y", {}, True),
        (NOTHING_DESTRUCTIVE, "tools", "x", {}, False),
        (NOTHING_DESTRUCTIVE, "tools", "x", READ_ONLY, True),
        ({"allow": [{"toolsets": ["docs"]}]}, "tools", "x", {}, False),
    ],
)  # fmt: skip
def test_what_grants_give(grants: Any, kind: str, text: str, item: Any, expected: bool) -> None:
    assert sees(grants, kind, text, tags=("public",), **item) is expected


@pytest.mark.parametrize(
    ("deny", "uri"),
    [
        ("x://h/secret*", "x://h/%%37%33ecret/a"),
        ("x://h/secret*", "x://h/%73ecret/a"),
        ("x://h/secret*", "x://h/%2573ecret/a"),
        ("x://h/secret*", "x://h//secret/a"),
        ("x://h/secret*", "X://h/secret/a"),
        ("x://h/secret*", "x://h\\secret"),
        ("file:///srv/private/*", "file:///srv/private%2Fk"),
        ("file:///srv/private/*", "file:///srv%2Fprivate/k"),
        ("file:///srv/private/*", "file://localhost/srv/private/k"),
        ("file:///srv/private/*", "file:///srv//private/k"),
        ("memo://Private/*", "memo://Private/notes"),
        ("x://h/a%2fb", "x://h/a%2fb"),
        ("x://h/%7Eroot/*", "x://h/~root/a"),
        ("x://h/é*", "x://h/%C3%A9a"),
        ("memo://{User}/x", "memo://{User}/x"),
    ],
)
def test_a_deny_of_uris_is_passed_by_no_other_spelling(deny: str, uri: str) -> None:
    grants = {"allow": [{"servers": ["*"]}], "deny": [{"resources": [deny]}]}
    assert not sees(grants, "resources", uri)
    assert sees(grants, "resources", "x://h/elsewhere")


def test_what_takes_long_to_read_is_refused() -> None:
    assert normal_uri("x://h/" + "%25" * 3_000) is None
    assert normal_uri("x://h/" + "a" * 8_000) is not None


def test_annotations_that_are_not_trusted_are_as_good_as_none() -> None:
    found = read_grants({"allow": [READ_ONLY]}).of_server("docs", (), trusts=False)
    assert not found.sees("tools", "x", READ_ONLY)


def test_hints_have_the_protocols_defaults() -> None:
    assert believed(None) == {
        "readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": True,
    }  # fmt: skip
    assert believed(READ_ONLY)["destructiveHint"] is False
    assert believed({"annotations": {"readOnlyHint": True, "destructiveHint": True}})["destructiveHint"] is True
    assert believed({"annotations": ["readOnlyHint"]}) == believed(None)


@pytest.mark.parametrize(
    ("grants", "names"),
    [
        ([], "grants"),
        ("all", "grants"),
        ({"alow": []}, "grants"),
        ({"allow": {}}, "grants.allow"),
        ({"allow": ["*"]}, "grants.allow[0]"),
        ({"allow": [{}]}, "grants.allow[0]"),
        ({"deny": [{"server": ["x"]}]}, "grants.deny[0]"),
        ({"allow": [{"servers": "docs"}]}, "grants.allow[0].servers"),
        ({"allow": [{"servers": []}]}, "grants.allow[0].servers"),
        ({"allow": [{"servers": [1]}]}, "grants.allow[0].servers"),
        ({"allow": [{"servers": [""]}]}, "grants.allow[0].servers"),
        ({"allow": [{"servers": ["x" * 257]}]}, "grants.allow[0].servers"),
        ({"allow": [{"servers": ["x"] * 257}]}, "grants.allow[0].servers"),
        ({"allow": [{"servers": ["x"]}] * (MAX_RULES + 1)}, "grants.allow"),
        ({"allow": [{"servers": ["x" * 250] * 100}] * 10}, "grants"),
        ({"allow": [{"toolsets": ["a"], "servers": ["b"]}]}, "grants.allow[0]"),
        ({"allow": [{"annotations": {"readOnlyHint": True}, "prompts": ["b"]}]}, "grants.allow[0]"),
        ({"allow": [{"annotations": {"readOnlyHint": 1}}]}, "grants.allow[0].annotations"),
        ({"allow": [{"annotations": {"safeHint": True}}]}, "grants.allow[0].annotations"),
        ({"allow": [{"annotations": {}}]}, "grants.allow[0].annotations"),
    ],
)
def test_bad_grants_are_refused_by_the_place(grants: Any, names: str) -> None:
    with pytest.raises(InvalidParams) as refusal:
        read_grants(grants)
    assert refusal.value.facts["field"] == names


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("file:///a/b", "file:///a/b"),
        ("FILE://HOST/A/%7eb%2f", "file://host/A/~b%2F"),
        ("Custom://Host/A", "custom://Host/A"),
        ("a://b/%zz", None),
        ("a://b/é", "a://b/%C3%A9"),
        ("db:Row", "db:Row"),
        ("no scheme", "no scheme"),
        ("a://b/./c", None),
        ("a://b/..", None),
        ("a://b/%2e/c", None),
        ("a://b/%252e%252e/c", None),
        ("a://b\\..\\c", None),
        ("a://b%2f..%2fc", None),
        ("a://b/..?x", None),
        ("a:../c", None),
        ("a://b/...", "a://b/..."),
        ("a://b/.c", "a://b/.c"),
    ],
)
def test_a_uri_has_one_spelling(uri: str, normal: str | None) -> None:
    assert normal_uri(uri) == normal
