import pytest

from gateway.protocol import versions


@pytest.mark.parametrize("version", versions.HANDSHAKE)
def test_a_revision_we_speak_is_kept(version: str) -> None:
    assert versions.negotiate(version) == version


@pytest.mark.parametrize("asked", ["2026-07-28", "1999-01-01", ""])
def test_any_other_gets_our_latest_with_a_handshake(asked: str) -> None:
    assert versions.negotiate(asked) == "2025-11-25"


def test_absence_is_the_gate() -> None:
    assert "tools/call" in versions.METHODS_OF["2025-11-25"]
    assert "server/discover" not in versions.METHODS_OF["2025-11-25"]
    assert "2026-07-28" not in versions.METHODS_OF


def test_all_is_passed_on_but_experimental_tasks() -> None:
    said = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}, "tasks": {}, "x": 1}
    assert versions.forwardable(said) == {name: value for name, value in said.items() if name != "tasks"}


@pytest.mark.parametrize(
    ("method", "params", "version", "declared", "may"),
    [
        ("sampling/createMessage", {}, "2024-11-05", {"sampling": {}}, True),
        ("sampling/createMessage", {}, "2024-11-05", {}, False),
        ("roots/list", {}, "2025-11-25", {"roots": {"listChanged": True}}, True),
        ("elicitation/create", {}, "2025-03-26", {"elicitation": {}}, False),
        ("elicitation/create", {}, "2025-06-18", {"elicitation": {}}, True),
        ("elicitation/create", {"mode": "url"}, "2025-11-25", {"elicitation": {"form": {}}}, False),
        ("elicitation/create", {"mode": "url"}, "2025-11-25", {"elicitation": {"url": {}}}, True),
        ("tasks/get", {}, "2025-11-25", {"tasks": {}}, False),
    ],
)
def test_a_client_is_asked_only_what_it_declared(
    method: str, params: dict[str, str], version: str, declared: dict[str, object], may: bool
) -> None:
    assert versions.may_ask(method, params, version, declared) is may


def test_what_a_revision_does_not_have_is_not_told() -> None:
    assert versions.may_tell("notifications/elicitation/complete", "2025-11-25")
    assert not versions.may_tell("notifications/elicitation/complete", "2025-06-18")
    assert not versions.may_tell("notifications/tasks/status", "2025-11-25")
