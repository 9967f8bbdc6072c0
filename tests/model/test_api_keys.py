import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.errors import InvalidParams
from gateway.model.api_keys import new_id, new_key, read_key_fields, read_overlap, what_is_wrong

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_key_is_found_by_scanners_and_a_mistyped_one_is_told() -> None:
    key = new_key(new_id())
    assert re.fullmatch(r"mgw_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}", key)
    assert what_is_wrong(key) is None
    other = "x" if key[20] != "x" else "y"
    assert "checksum" in (what_is_wrong(f"{key[:20]}{other}{key[21:]}") or "")
    assert "cut off" in (what_is_wrong(key[:-1]) or "")
    assert what_is_wrong("sk-something-else") == ""
    assert new_key("a" * 12) != new_key("a" * 12)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": 1}, "name"),
        ({"name": "x", "role": "root"}, "role"),
        ({"name": "x", "role": "operator", "grants": {"allow": [{"servers": ["*"]}]}}, "grants"),
        ({"name": "x", "tags": "a"}, "tags"),
        ({"name": "x", "owner": ""}, "owner"),
        ({"name": "x", "expires_in": 0}, "expires_in"),
        ({"name": "x", "expires_in": True}, "expires_in"),
        ({"name": "x", "expires_in": 10**12}, "expires_in"),
        ({"name": "x", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "x", "expires_at": "2027-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "expires_at": "2025-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "expires_at": "2099-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "expires_at": 5}, "expires_at"),
        ({"name": "x", "expires_at": "2027-01-01T00:00:00Z", "expires_in": 5}, "expires_in"),
        ({"name": "x", "secret": "mine"}, "secret"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as refusal:
        read_key_fields(fields, NOW).new()
    assert refusal.value.facts["field"] == field


def test_fields_that_are_not_sent_stay_as_they_are() -> None:
    spec = read_key_fields({"name": " ci ", "owner": "team", "expires_in": 60, "tags": ["a", "a"]}, NOW).new()
    assert (spec.name, spec.owner, spec.expires_at, spec.tags) == ("ci", "team", NOW + timedelta(seconds=60), ("a",))
    assert read_key_fields({}, NOW).changed(spec) == spec
    changed = read_key_fields({"expires_at": None, "owner": None}, NOW).changed(spec)
    assert (changed.expires_at, changed.owner, changed.name) == (None, None, "ci")


@pytest.mark.parametrize("value", [-1, 604_801, "1", 1.5, True, None])
def test_an_overlap_has_bounds(value: Any) -> None:
    with pytest.raises(InvalidParams):
        read_overlap(value)
