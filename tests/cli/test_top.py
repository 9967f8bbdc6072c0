"""What `top` makes of the page's stream: figures of the last minutes, and a screen that fits."""

import io
from typing import Any

import pytest
from rich.console import Console

from gateway.cli.client import Event
from gateway.cli.top import Seen, _screen
from gateway.observability.ring import BOUNDS

HELLO = {"is_operator": True, "slot_seconds": 10, "version": "1", "url": "http://x", "has_calls": True}


def counts(calls: int, errors: int, bucket: int) -> list[int]:
    """A server's counts, all calls of the same bucket."""
    return [calls, errors, *(calls if place == bucket else 0 for place in range(len(BOUNDS) + 1))]


def server(name: str, state: str = "ready", **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "counts": {"tools": 3}, **more}


def seen(*servers: dict[str, Any], slots: dict[int, Any] | None = None, now: int = 1000) -> Seen:
    found = Seen()
    found.take(Event("hello", HELLO))
    found.take(Event("servers", {"servers": list(servers)}))
    found.take(Event("workers", {"workers": [], "sessions": 2}))
    slots = slots or {}
    shown = [{"number": number, "servers": slot} for number, slot in slots.items()]
    found.take(Event("figures", {"now": now, "slots": shown}))
    return found


def shown(found: Seen, height: int, width: int = 100) -> list[str]:
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(_screen(found, height))
    return console.export_text().splitlines()


def test_recent_calls_are_those_of_the_last_five_minutes() -> None:
    slots = {
        1000: {"a": counts(30, 2, 3), "b": counts(10, 0, 8)},
        990: {"a": counts(10, 0, 3)},
        960: {"a": counts(99, 9, 1)},
    }
    found = seen(server("a"), slots=slots)
    of_a, of_all = found.recent("a"), found.recent()
    assert (of_a.calls, of_a.errors, of_all.calls) == (40, 2, 50)
    assert of_a.per_second == pytest.approx(40 / 110)  # from the slot 990 on
    assert of_a.ms(0.5) == 7.5  # the middle of 5 to 10 ms
    assert found.recent("c").ms(0.5) is None
    found.take(Event("figures", {"now": 1010, "slots": [{"number": 1010, "servers": {"a": counts(1, 1, 0)}}]}))
    assert found.recent("a").calls == 41
    found.take(Event("figures", {"now": 1039, "slots": []}))
    assert found.recent("a").calls == 1


def test_newer_counts_of_a_slot_take_the_place_of_older_ones() -> None:
    found = seen(server("a"), slots={1000: {"a": counts(3, 0, 1)}})
    found.take(Event("figures", {"now": 1000, "slots": [{"number": 1000, "servers": {"a": counts(5, 0, 1)}}]}))
    assert found.recent("a").calls == 5


def test_servers_in_trouble_stand_first_and_then_those_that_are_called_most() -> None:
    servers = [server("quiet"), server("busy"), server("gone", "unreachable", reason="refused")]
    lines = shown(seen(*servers, slots={1000: {"busy": counts(5, 0, 1)}}), 40)
    rows = [line.split()[0] for line in lines if line.startswith(("quiet", "busy", "gone"))]
    assert rows == ["gone", "busy", "quiet"]
    assert any("unreachable" in line and "refused" in line for line in lines)


def test_what_comes_at_once_is_told_from_what_is_still_to_come() -> None:
    """A user's key gets no figures: a beat says that there is nothing more."""
    operator, user = Seen(), Seen()
    for found, is_operator in ((operator, True), (user, False)):
        found.take(Event("hello", HELLO | {"is_operator": is_operator}))
        found.take(Event("servers", {"servers": []}))
        assert not found.is_whole
        found.take(Event("", None))
    assert (operator.is_whole, user.is_whole) == (False, True)
    operator.take(Event("workers", {"workers": [], "sessions": None}))
    assert operator.is_whole


def test_long_words_leave_room_for_the_figures() -> None:
    servers = [server("n" * 60, "unreachable", reason="because " * 50), server("short")]
    lines = shown(seen(*servers, slots={1000: {"short": counts(5, 0, 3)}}), 40, width=100)
    assert any("short" in line and "7.5 ms" in line for line in lines)


@pytest.mark.parametrize("height", [24, 40, 60])
def test_a_screen_fits_and_says_what_is_left_out(height: int) -> None:
    found = seen(*(server(f"s{number}") for number in range(300)))
    workers = [
        {"replica": f"r{number}", "worker": "0", "revision": 1, "sessions": 0, "streams": 0, "in_flight": 0}
        | {"memory": 1 << 20, "degraded": None}
        for number in range(10)
    ]
    found.take(Event("workers", {"workers": workers, "sessions": 0}))
    row = {"at": "2026-11-26T10:00:00+00:00", "principal": "p", "server": "s1", "tool": "t", "outcome": "ok"}
    found.take(Event("calls", {"rows": [row | {"ms": 1.0, "upstream_ms": None}] * 100}))
    lines = shown(found, height)
    assert len(lines) <= height
    assert any("more" in line for line in lines)


def test_words_of_servers_are_no_commands_for_the_terminal() -> None:
    found = seen(server("a", "unreachable", reason="[red]x[/red]\x1b\x07\nsecond"))
    text = "\n".join(shown(found, 40, width=140))
    assert "\x1b" not in text
    assert "[red]x[/red]" in text
    assert "second" in text
