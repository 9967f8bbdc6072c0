"""Arguments as parts of a request: styles (OpenAPI 3.1.1, 4.8.12.4, has the examples), bodies, and what is refused."""

from typing import Any

import pytest

from gateway.openapi.plan import FORM, JSON, MULTIPART, Body, Place, Plan
from gateway.openapi.request import ApiRequest, BadArguments, request_of

COLORS = ["blue", "black", "brown"]
RGB = {"R": 100, "G": 200, "B": 150}


def made(
    path: str = "/x", body: Body | None = None, arguments: dict[str, Any] | None = None, **places: Place
) -> ApiRequest:
    plan = Plan("POST", path, places, body, (), "*/*", None)
    return request_of("https://api.test/v1/", plan, arguments or {})


@pytest.mark.parametrize(
    ("style", "explode", "value", "text"),
    [
        ("matrix", False, "blue", ";color=blue"),
        ("matrix", False, COLORS, ";color=blue,black,brown"),
        ("matrix", False, RGB, ";color=R,100,G,200,B,150"),
        ("matrix", True, COLORS, ";color=blue;color=black;color=brown"),
        ("matrix", True, RGB, ";R=100;G=200;B=150"),
        ("label", False, "blue", ".blue"),
        ("label", False, COLORS, ".blue,black,brown"),
        ("label", True, COLORS, ".blue.black.brown"),
        ("label", True, RGB, ".R=100.G=200.B=150"),
        ("simple", False, COLORS, "blue,black,brown"),
        ("simple", False, RGB, "R,100,G,200,B,150"),
        ("simple", True, RGB, "R=100,G=200,B=150"),
        ("simple", False, "a/../b?c#d%2e", "a%2F..%2Fb%3Fc%23d%252e"),
        ("simple", False, "ä é", "%C3%A4%20%C3%A9"),
        ("simple", False, True, "true"),
    ],
)
def test_a_value_in_the_path(style: str, explode: bool, value: Any, text: str) -> None:
    request = made("/x/{color}/y", arguments={"color": value}, color=Place("path", "color", style, explode))
    assert request.url == f"https://api.test/v1/x/{text}/y"


@pytest.mark.parametrize(
    ("style", "explode", "value", "text"),
    [
        ("form", False, "blue", "color=blue"),
        ("form", False, COLORS, "color=blue,black,brown"),
        ("form", False, RGB, "color=R,100,G,200,B,150"),
        ("form", True, COLORS, "color=blue&color=black&color=brown"),
        ("form", True, RGB, "R=100&G=200&B=150"),
        ("spaceDelimited", False, COLORS, "color=blue%20black%20brown"),
        ("pipeDelimited", False, COLORS, "color=blue%7Cblack%7Cbrown"),
        ("deepObject", True, RGB, "color[R]=100&color[G]=200&color[B]=150"),
        ("deepObject", True, {"a": {"b": ["c"]}}, "color[a][b][0]=c"),
        ("form", True, "a&b=c#d", "color=a%26b%3Dc%23d"),
        ("form", True, [], ""),
        ("form", True, None, ""),
    ],
)
def test_a_value_in_the_query(style: str, explode: bool, value: Any, text: str) -> None:
    request = made(arguments={"c": value}, c=Place("query", "color", style, explode))
    assert request.url == "https://api.test/v1/x" + (f"?{text}" if text else "")


def test_reserved_characters_stay_but_for_those_that_end_the_value() -> None:
    request = made(arguments={"c": "a/b?c&d#e"}, c=Place("query", "c", "form", True, reserved=True))
    assert request.url == "https://api.test/v1/x?c=a/b?c%26d%23e"


def test_a_parameter_with_content_is_json() -> None:
    request = made(arguments={"c": RGB}, c=Place("query", "c", as_json=True))
    assert request.url == "https://api.test/v1/x?c=%7B%22R%22%3A100%2C%22G%22%3A200%2C%22B%22%3A150%7D"


@pytest.mark.parametrize(("value", "text"), [(COLORS, "blue,black,brown"), (RGB, "R,100,G,200,B,150"), (5, "5")])
def test_a_value_in_a_header(value: Any, text: str) -> None:
    assert made(arguments={"c": value}, c=Place("header", "X-C")).headers["x-c"] == text


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "\0", "", " a", "ü\u0100"])
def test_a_header_can_not_end_its_line(value: str) -> None:
    with pytest.raises(BadArguments):
        made(arguments={"c": value}, c=Place("header", "X-C"))


@pytest.mark.parametrize("value", ["", ".", "..", None, []])
def test_a_segment_can_not_be_left(value: Any) -> None:
    with pytest.raises(BadArguments):
        made("/x/{c}", arguments={"c": value}, c=Place("path", "c"))


def test_dots_beside_a_value_are_no_way_up() -> None:
    with pytest.raises(BadArguments):
        made("/x/{a}{b}/y", arguments={"a": ".", "b": "."}, a=Place("path", "a"), b=Place("path", "b"))


def test_bodies() -> None:
    fields = {"a": "a[b]", "c": "c"}
    request = made(
        body=Body("form", FORM, None, fields, {"c": ("deepObject", True)}), arguments={"a": [1, "x y"], "c": {"d": 2}}
    )
    assert request.body == b"a[b]=1&a[b]=x%20y&c[d]=2"
    assert request.headers["content-type"] == FORM
    request = made(body=Body("form", FORM, None, fields, {"a[b]": ("form", False)}), arguments={"a": [1, 2]})
    assert request.body == b"a[b]=1%2C2"
    request = made(body=Body("json", JSON, None, fields), arguments={"a": None})
    assert request.body == b'{"a[b]":null}'
    assert made(body=Body("json", JSON, None, fields)).body == b"{}"
    assert made(body=Body("json", JSON, "body"), arguments={"body": [1]}).body == b"[1]"
    assert made(body=Body("text", "text/plain", "body"), arguments={"body": "ä"}).body == "ä".encode()
    assert made(body=Body("json", JSON, "body")).body is None
    request = made(body=Body("multipart", MULTIPART, None, {"a": 'n"\r\n'}), arguments={"a": "v"})
    assert b'name="n%22%0D%0A"\r\n\r\nv\r\n--' in (request.body or b"")


def test_a_long_address_is_refused() -> None:
    with pytest.raises(BadArguments, match="characters"):
        made(arguments={"c": "x" * 40_000}, c=Place("query", "c"))
