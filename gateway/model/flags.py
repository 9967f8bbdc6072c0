"""What looks suspicious in what a server offers, with the place named. Nothing is altered; people judge.

Looked for: characters that a person does not see, texts that give orders to a model (of the kind that reported attacks
use: to read secrets, to say nothing to the user, to call this tool before others), and names that look like another
server's. A text that is found clean may still be hostile: this finds the careless and the known.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from gateway.model.hidden_text import hidden, skeleton, visible
from gateway.model.kinds import KINDS
from gateway.model.server import Offers, Server

MAX_FLAGS = 50  # of one server and sort
_SHOWN = 80  # characters of a text, and of a step of a place
_MAX_PLACE = 400
_PIECE, _OVERLAP = 16_384, 256  # characters that are looked at in one go, and those that two pieces share
_MEMBERS = 1_000  # numbers and the like that are passed over in one step
_WORDS = frozenset({"mimeType", "$schema", "$ref", "type", "format"})  # members that mostly are a word of the protocol
_WORD = re.compile(r"[\w.+/#:$~-]{1,100}", re.ASCII)
_HIDDEN = "hidden"
_GAP = r"(?:\W{1,4}\w{1,20}){0,4}?\W{1,4}"  # at most four words between two that matter


def _any_case(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Order:
    """One sort of orders: a text has it if the pattern fits. One of the words is looked for first, which is fast."""

    what: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]


_ORDERS = (
    _Order(
        "asks to set other instructions aside",
        ("ignore", "disregard", "forget", "overrid", "bypass"),
        _any_case(
            rf"\b(?:ignore|disregard|forget|override|bypass){_GAP}"
            r"(?:instructions?|prompts?|rules|guidelines|guardrails|polic(?:y|ies)|context)\b"
        ),
    ),
    _Order(
        "asks to keep something from the user",
        ("user", "human", "anyone", "anybody", "operator"),
        _any_case(
            rf"\b(?:do not|don'?t|never|without|must not|should not|avoid){_GAP}"
            r"(?:mention|tell(?:ing)?|inform(?:ing)?|notify(?:ing)?|reveal|disclose|alert)"
            rf"{_GAP}(?:users?|humans?|anyone|anybody|operator)\b"
            r"|\b(?:hide|hidden|conceal|concealed|keep|kept)\b[^.\n]{0,60}\bfrom the (?:user|human)\b"
            r"|\bthe (?:user|human) (?:must|should) (?:not|never) (?:know|see|be (?:told|informed))\b"
        ),
    ),
    _Order(
        "asks to be called before or instead of other tools",
        ("tool", "this first", "this before"),
        _any_case(
            r"\b(?:before|prior to|instead of|when(?:ever)?|after) (?:using|calling|invoking|running|executing) "
            r"(?:any|every|all|each|another|other|some)\b[^.\n]{0,40}\btools?\b"
            r"|\b(?:always|must)\b[^.\n]{0,30}\b(?:call|use|invoke|run) this (?:tool )?(?:first|before)\b"
        ),
    ),
    _Order(
        "asks for files or values that hold secrets",
        ("~/.", "/etc/", "id_rsa", "id_ed25519", ".ssh/", ".aws/", "mcp.json", "system prompt"),
        _any_case(
            r"\b(?:read|open|cat|load|fetch|get|include|send|pass|copy|print|attach|upload|provide)\b[^\n]{0,60}?"
            r"(?:~/\.|/etc/passwd|/etc/shadow|\bid_rsa\b|\bid_ed25519\b|\.ssh/|\.aws/|\bmcp\.json\b"
            r"|\bsystem prompt\b)"
        ),
    ),
    _Order(
        "speaks as somebody else, in tags",
        ("<", "["),
        _any_case(
            r"<\s{0,4}/?\s{0,4}(?:important|system|secret|instructions?|hidden|assistant|critical|admin|override)"
            r"\s{0,4}>|\[/?(?:inst|system)\]|<\|(?:im_start|im_end|system|assistant|user)\|>"
        ),
    ),
    _Order(
        "gives the model another role",
        ("you are now", "your new"),
        _any_case(r"\byou are now (?:a|an|in|the|no longer)\b|\byour new (?:role|task|instructions?)\b"),
    ),
)

Flag = Mapping[str, str]
_Place = tuple[Any, str | int]
"""A place in nested values: the place around it (None at the top), and the step from there."""


def flags(offers: Offers, others: Collection[Server], found: list[Flag]) -> Iterator[None]:
    """Find what is suspicious in a server's offers, in steps of a few milliseconds.

    `found` takes `{"place", "what", "detail"}`; `what` is `orders`, `hidden` or `look_alike`, in this order, at most
    MAX_FLAGS of each and then one that counts the others. `others` are the servers whose names it must not look like.
    """
    sorts: dict[str, list[Flag]] = {"orders": [], _HIDDEN: [], "look_alike": []}
    counts = dict.fromkeys(sorts, 0)
    for flag in chain(_in_texts(offers), _look_alikes(offers, others)):
        if flag is not None:
            what = flag["what"]
            counts[what] += 1
            if counts[what] <= MAX_FLAGS:
                sorts[what].append(flag)
        yield
    for what, kept in sorts.items():
        found += kept
        if counts[what] > MAX_FLAGS:
            found.append({"place": "", "what": what, "detail": f"and {counts[what] - MAX_FLAGS} more"})


def _in_texts(offers: Offers) -> Iterator[Flag | None]:
    for each in _texts(offers):
        if each is None:
            yield None
        else:
            yield from _of_text(*each)


def _of_text(place: _Place, text: str) -> Iterator[Flag | None]:
    """What is suspicious in one text, once of each sort; None after each piece."""
    left = [_HIDDEN, *(order.what for order in _ORDERS)]
    for start in range(0, max(1, len(text)), _PIECE):
        if _HIDDEN in left and (first := hidden(text, start, start + _PIECE)) is not None:
            left.remove(_HIDDEN)
            at, what = first
            detail = f"{what} at character {at + 1}: {_around(text, at)}"
            yield {"place": _written(place), "what": _HIDDEN, "detail": detail}
        piece = text[start : start + _PIECE + _OVERLAP]
        lower = piece.lower()
        for order in _ORDERS:
            if order.what not in left or not any(word in lower for word in order.words):
                continue
            if (match := order.pattern.search(piece)) is not None:
                left.remove(order.what)
                detail = f"{order.what}: {_around(piece, match.start())}"
                yield {"place": _written(place), "what": "orders", "detail": detail}
        yield None


def _around(text: str, at: int) -> str:
    """The text at a place, short and with everything visible."""
    start = max(0, at - _SHOWN // 4)
    shown = " ".join(visible(text[start : start + _SHOWN]).split())
    return f"{'…' if start else ''}{shown}{'…' if start + _SHOWN < len(text) else ''}"


def _texts(offers: Offers) -> Iterator[tuple[_Place, str] | None]:
    """All texts of what is offered, with their places; None now and then where there are none."""
    for name in ("instructions", "server_info", "capabilities"):
        if value := getattr(offers, name):
            yield from _inside((None, name), value)
    for kind, identity in ((kind.name, kind.identity) for kind in KINDS.values()):
        for item in getattr(offers, kind):
            yield from _inside((None, f"{kind}[{_step(item[identity])}]"), item)


def _inside(place: _Place, value: Any) -> Iterator[tuple[_Place, str] | None]:
    """The texts in a value, also the names of its members; without recursion, since JSON is nested as anybody likes."""
    if isinstance(value, str):
        yield place, value
        return
    waiting = [(place, _members(value))]
    passed = 0
    while waiting:
        around, members = waiting[-1]
        for step, member in members:
            if isinstance(member, str):
                yield (around, step), member
            elif isinstance(member, Mapping | list | tuple):
                waiting.append(((around, step), _members(member)))
                break
            elif (passed := passed + 1) % _MEMBERS == 0:
                yield None
        else:
            waiting.pop()


def _members(value: Any) -> Iterator[tuple[str | int, Any]]:
    if not isinstance(value, Mapping):
        yield from enumerate(value)
        return
    for name, member in value.items():
        if not (name.isascii() and name.isidentifier()):
            yield name, name
        if not (name in _WORDS and isinstance(member, str) and _WORD.fullmatch(member)):
            yield name, member


def _written(place: _Place) -> str:
    """A place as people write it, cut where it is long."""
    steps: list[str] = []
    around: Any = place
    while around is not None:
        around, step = around
        steps.append(f"[{step}]" if isinstance(step, int) else f".{_step(step)}")
    written = "".join(reversed(steps))[1:]
    return written if len(written) <= _MAX_PLACE else f"{written[:_MAX_PLACE]}…"


def _step(name: str) -> str:
    return " ".join(visible(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…").split())


def _look_alikes(offers: Offers, others: Collection[Server]) -> Iterator[Flag | None]:
    """Tools and prompts whose names can be taken for other ones, of other servers or of its own."""
    for kind in ("tools", "prompts"):
        own: dict[str, str] = {}
        alike: dict[str, list[tuple[str, str]]] = {}
        for item in getattr(offers, kind):
            yield None
            look = own[item["name"]] = skeleton(item["name"])
            alike.setdefault(look, []).append(("of its own", item["name"]))
        for server in others:
            for item in server.listed(kind):
                yield None
                if (look := skeleton(item["name"])) in alike:
                    alike[look].append((f"of server {server.name!r}", item["name"]))
        for name, look in own.items():
            yield None
            for whose, other in alike[look]:
                if other != name:
                    detail = f"looks like {_step(other)!r}, {whose}"
                    yield {"place": f"{kind}[{_step(name)}]", "what": "look_alike", "detail": detail}
                    break
