from typing import Any

import pytest

from gateway.errors import InvalidParams
from gateway.model.limits import Limits, read_limits


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([], "limits"),
        ("10", "limits"),
        ({"per_second": 1}, "limits"),
        ({"burst": 5}, "limits"),
        ({"calls_per_second": 0}, "limits.calls_per_second"),
        ({"calls_per_second": -1}, "limits.calls_per_second"),
        ({"calls_per_second": "10"}, "limits.calls_per_second"),
        ({"calls_per_second": True}, "limits.calls_per_second"),
        ({"calls_per_second": float("nan")}, "limits.calls_per_second"),
        ({"calls_per_second": float("inf")}, "limits.calls_per_second"),
        ({"calls_per_second": 10**7}, "limits.calls_per_second"),
        ({"calls_per_second": 1, "burst": 1.5}, "limits.burst"),
        ({"concurrent": 0}, "limits.concurrent"),
        ({"concurrent": 10**9}, "limits.concurrent"),
        ({"calls_per_day": 0.5}, "limits.calls_per_day"),
        ({"calls_per_day": 10**12}, "limits.calls_per_day"),
    ],
)
def test_bad_limits_are_named(value: Any, field: str) -> None:
    with pytest.raises(InvalidParams) as refusal:
        read_limits(value)
    assert refusal.value.facts["field"] == field


def test_limits_are_shown_as_they_were_sent() -> None:
    assert read_limits(None) is read_limits({}) is read_limits({"burst": None}) is None
    sent = {"calls_per_second": 0.5, "burst": 3, "concurrent": 8, "calls_per_day": 10_000}
    found = read_limits(sent)
    assert found is not None
    assert found.public() == sent


@pytest.mark.parametrize(
    ("limits", "lease", "at_once"),
    [
        (Limits(calls_per_second=0.5), 1, 1),
        (Limits(calls_per_second=10), 1, 10),
        (Limits(calls_per_second=100, burst=1), 10, 1),
        (Limits(calls_per_second=1e6), 1000, 1_000_000),
        (Limits(calls_per_day=10), 1, 1),
        (Limits(calls_per_day=100_000), 100, 1),
    ],
)
def test_a_lease_is_a_tenth_of_a_seconds_calls(limits: Limits, lease: int, at_once: int) -> None:
    assert (limits.lease, limits.at_once) == (lease, at_once)
