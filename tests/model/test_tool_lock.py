"""What is served of a server's tools, by its lock and by what was approved."""

from typing import Any

import pytest

from gateway.model.tool_lock import Approved, approve, first_approved, judge, seen


def tool(name: str, description: str = "", **hints: bool) -> dict[str, Any]:
    return {"name": name, "description": description, "inputSchema": {}, **({"annotations": hints} if hints else {})}


SAME, BEFORE, AFTER, NEW, GONE = tool("same"), tool("it", "old"), tool("it", "new"), tool("new"), tool("gone")
APPROVED = Approved(first_approved([SAME, BEFORE, GONE]))
OFFERED = (AFTER, SAME, NEW)


def test_a_lock_that_is_enforced_serves_what_was_approved() -> None:
    judged = judge("enforce", OFFERED, APPROVED)
    assert judged.tools == (BEFORE, SAME)
    assert judged.held == {"it"}
    assert judged.changes == {"it": "changed", "new": "new", "gone": "gone"}


def test_a_lock_that_warns_serves_what_is_offered() -> None:
    judged = judge("warn", OFFERED, APPROVED)
    assert judged.tools == OFFERED
    assert not judged.held
    assert judged.changes == {"it": "changed", "new": "new", "gone": "gone"}


def test_without_a_lock_nothing_is_compared() -> None:
    judged = judge(None, OFFERED, APPROVED)
    assert (judged.tools, judged.changes, judged.held) == (OFFERED, {}, frozenset())


def test_nothing_is_served_before_anything_was_approved() -> None:
    judged = judge("enforce", OFFERED, Approved())
    assert judged.tools == ()
    assert set(judged.changes.values()) == {"new"}


def test_a_name_that_is_listed_twice_is_its_first_tool() -> None:
    assert judge("enforce", (SAME, tool("same", "other")), APPROVED).tools == (SAME,)
    assert judge("enforce", (NEW, NEW, SAME), APPROVED).tools == (SAME,)
    twice = judge("enforce", (SAME, tool("same", "other")), Approved(first_approved([SAME])))
    assert (twice.held, twice.changes) == (frozenset(), {})


def test_what_is_no_part_of_a_definition_stays_as_it_was_approved() -> None:
    judged = judge("enforce", ({**SAME, "_meta": {"a": 1}},), APPROVED)
    assert (judged.tools, judged.held) == ((SAME,), frozenset())


def test_what_is_approved_is_served_and_what_is_gone_forgotten() -> None:
    one = approve("enforce", OFFERED, APPROVED, {"it"})
    assert judge("enforce", OFFERED, one).tools == (AFTER, SAME)
    every = approve("enforce", OFFERED, one, {"new", "gone"})
    judged = judge("enforce", OFFERED, every)
    assert (judged.tools, judged.changes) == (OFFERED, {})
    assert judge("enforce", (GONE,), every).tools == ()
    assert judge("enforce", (GONE,), one).tools == (GONE,)


SAFER: list[dict[str, bool]] = [
    {"readOnlyHint": True},
    {"destructiveHint": False},
    {"idempotentHint": True},
    {"openWorldHint": False},
]


@pytest.mark.parametrize("hint", SAFER)
@pytest.mark.parametrize("lock", [None, "warn", "enforce"])
def test_a_hint_that_became_safer_is_not_believed_until_approved(hint: dict[str, bool], lock: str | None) -> None:
    before, after = tool("t"), tool("t", "", **hint)
    hints = seen(seen({}, [before]), [after])
    approved = Approved(first_approved([before]) if lock else None, hints)
    offered = (after,)
    name, value = next(iter(hint.items()))
    judged = judge(lock, offered, approved)
    if lock == "enforce":  # the approved definition is listed, which claims nothing
        assert judged.tools == (before,)
    else:
        assert judged.doubted["t"][name] is not value
    assert "t" not in judge(lock, offered, approve(lock, offered, approved, {"t"})).doubted


def test_a_hint_of_a_tool_that_was_just_seen_is_believed_also_what_is_less_safe_now() -> None:
    first = tool("t", readOnlyHint=True)
    hints = seen({}, [first])
    assert not judge(None, (first,), Approved(None, hints)).doubted
    worse = tool("t", readOnlyHint=False)
    hints = seen(hints, [worse])
    assert not judge(None, (worse,), Approved(None, hints)).doubted
    hints = seen(hints, [first])  # and back
    assert judge(None, (first,), Approved(None, hints)).doubted["t"]["readOnlyHint"] is False


def test_a_tool_that_went_away_comes_back_as_it_is_remembered() -> None:
    hints = seen(seen(seen({}, [tool("t")]), []), [tool("t", readOnlyHint=True)])
    assert "t" in judge(None, (tool("t", readOnlyHint=True),), Approved(None, hints)).doubted


def test_no_list_makes_room_for_a_hint_that_became_safer() -> None:
    """What is remembered has a bound, and nothing is forgotten: a tool that finds no room is not believed."""
    hints = seen({"t": 0}, [tool(str(number)) for number in range(20_000)])
    assert len(hints) == 20_000
    safer = tool("t", readOnlyHint=True)
    assert "t" in judge(None, (safer,), Approved(None, seen(hints, [safer]))).doubted
    late = tool("late", readOnlyHint=True)
    hints = seen(hints, [late])
    assert judge(None, (late,), Approved(None, hints)).doubted["late"]["readOnlyHint"] is False
    assert not judge(None, (late,), approve(None, (late,), Approved(None, hints), {"late"})).doubted


def test_a_change_that_is_none_for_python_is_held() -> None:
    before, after = ({**tool("t"), "inputSchema": {"default": value}} for value in (1, True))
    judged = judge("enforce", (after,), Approved(first_approved([before])))
    assert judged.tools[0]["inputSchema"]["default"] is not True
    assert judged.held == {"t"}


def test_a_hint_that_is_approved_by_a_lock_alone_is_not_believed() -> None:
    """The lock took the definition; of what is listed, not of what is offered, the hints are asked for."""
    unsafe, safe = tool("t"), tool("t", readOnlyHint=True)
    hints = seen(seen({}, [unsafe]), [safe])
    locked = Approved(first_approved([safe]), seen(hints, [unsafe]))
    judged = judge("enforce", (unsafe,), locked)
    assert judged.tools == (safe,)
    assert judged.doubted["t"]["readOnlyHint"] is False
