import pytest

from gateway.protocol import versions


@pytest.mark.parametrize("version", versions.HANDSHAKE)
def test_a_revision_we_speak_is_kept(version: str) -> None:
    assert versions.negotiate(version) == version


@pytest.mark.parametrize("asked", ["2026-07-28", "1999-01-01", ""])
def test_any_other_gets_our_latest_with_a_handshake(asked: str) -> None:
    assert versions.negotiate(asked) == "2025-11-25"


def test_absence_is_the_gate() -> None:
    assert versions.allows("tools/call", "2025-11-25")
    assert not versions.allows("server/discover", "2025-11-25")
    assert not versions.allows("tools/call", "2026-07-28")


def test_only_what_is_passed_on_is_declared() -> None:
    said = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}, "x": 1}
    assert versions.forwardable(said) == {"tools": {"listChanged": True}, "resources": {}}
