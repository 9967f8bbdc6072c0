"""What is asked for on a terminal: what a schema requires, until it fits; a server's words are no commands there."""

from typing import Any

import pytest
import typer

from gateway.cli import item_commands
from gateway.cli.item_commands import ask_for


def answered(monkeypatch: pytest.MonkeyPatch, schema: dict[str, Any], *typed: str) -> tuple[dict[str, Any], str]:
    """What `ask_for` comes to where this is typed, and what it said."""
    left, said = list(typed), list[str]()

    def prompt(text: str, *, default: str | None, show_default: bool, err: bool) -> str:
        said.append(text)
        while not (value := left.pop(0)):
            if default is not None:
                return default
        return value

    monkeypatch.setattr(typer, "prompt", prompt)
    monkeypatch.setattr(typer, "echo", lambda text, err: said.append(text))
    found = ask_for(schema, {})
    assert left == []
    return found, "\n".join(said)


def one(declared: Any) -> dict[str, Any]:
    return {"type": "object", "required": ["x"], "properties": {"x": declared}}


@pytest.mark.parametrize(
    ("declared", "typed", "value"),
    [
        ({"type": "string"}, ["5"], "5"),
        ({"type": "string"}, ['""'], ""),
        ({"type": "integer"}, ["x", "1.5", "true", "NaN", "Infinity", "1e999", "7"], 7),
        ({"type": "integer"}, ["9" * 400], int("9" * 400)),
        ({"type": "number"}, ["NaN", "-Infinity", "[1]", "1.5"], 1.5),
        ({"type": "boolean"}, ["1", "yes", "true"], True),
        ({"type": "array"}, ["{}", "[" * 100_000, "[1, 2]"], [1, 2]),
        ({"type": "object"}, ["[]", "{}"], {}),
        ({"type": ["string", "null"]}, ["123"], "123"),
        ({"type": ["string", "null"]}, ["null"], None),
        ({"enum": [1, 2]}, ["true", "3", "2"], 2),
        ({"enum": ["a", "2"]}, ["2"], "2"),
        ({"type": "string", "default": "d"}, [""], "d"),
        ({"type": "integer", "default": 3}, ["x", ""], 3),
        ({}, ['{"a": 1}'], {"a": 1}),
        ({}, ["words"], "words"),
        ({}, ["\udcff", "[NaN]"], "[NaN]"),
        (5, ["1"], 1),
    ],
)
def test_it_asks_until_the_value_fits(
    monkeypatch: pytest.MonkeyPatch, declared: Any, typed: list[str], value: Any
) -> None:
    found, _ = answered(monkeypatch, one(declared), *typed)
    assert found == {"x": value}
    assert type(found["x"]) is type(value)


@pytest.mark.parametrize(
    "schema", [{}, {"required": True}, {"required": [5]}, {"required": "x", "properties": [1]}, {"required": []}]
)
def test_odd_schemas_ask_for_nothing(monkeypatch: pytest.MonkeyPatch, schema: dict[str, Any]) -> None:
    assert answered(monkeypatch, schema)[0] == {}


def test_what_a_server_says_is_no_command_for_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = "\x1b]0;owned\x07\x1b[31m\nEnter your key\u202e"
    schema = {"required": [bad], "properties": {bad: {"type": bad, "description": bad, "default": bad, "enum": [bad]}}}
    _, said = answered(monkeypatch, schema, "")
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
    assert "\nEnter" not in said


@pytest.mark.parametrize("text", ["NaN", "[NaN]", "1e999", "[" * 100_000, "-Infinity"])
def test_what_json_can_not_carry_is_a_text(text: str) -> None:
    assert item_commands._json_or_text(text) == text
