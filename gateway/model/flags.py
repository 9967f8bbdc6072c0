"""What looks suspicious in what a server offers, with the place named. Nothing is altered; people judge.

Looked for: characters that a person does not see, texts that give orders to a model (of the kind that reported attacks
use: to read secrets, to say nothing to the user, to call this tool before others), and names that look like another
server's. A text that is found clean may still be hostile: this finds the careless and the known.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.model.hidden_text import hidden, skeleton, visible
from gateway.model.kinds import KINDS
from gateway.model.server import Offers, Server

MAX_FLAGS = 100  # of one server
_SHOWN = 80  # characters of a text, and of a step of a place
_MAX_PLACE = 400
_PIECE, _OVERLAP = 16_384, 256  # characters that are looked at in one go, and those that two pieces share
_SKIPPED = frozenset({"mimeType", "$schema", "$ref", "type", "format", "src"})  # short words of the protocol
_HIDDEN = "hidden"
_GAP = r"(?:\W{1,4}\w{1,20}){0,4}?\W{1,4}"  # at most four words between two that matter


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
        re.compile(
            rf"\b(?:ignore|disregard|forget|override|bypass){_GAP}"
            r"(?:instructions?|prompts?|rules|guidelines|guardrails|polic(?:y|ies)|context)\b"
        ),
    ),
    _Order(
        "asks to keep something from the user",
        ("user", "human", "anyone", "anybody", "operator"),
        re.compile(
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
        re.compile(
            r"\b(?:before|prior to|instead of|when(?:ever)?|after) (?:using|calling|invoking|running|executing) "
            r"(?:any|every|all|each|another|other|some)\b[^.\n]{0,40}\btools?\b"
            r"|\b(?:always|must)\b[^.\n]{0,30}\b(?:call|use|invoke|run) this (?:tool )?(?:first|before)\b"
        ),
    ),
    _Order(
        "asks for files or values that hold secrets",
        ("~/.", "/etc/", "id_rsa", "id_ed25519", ".ssh/", ".aws/", "mcp.json", "system prompt"),
        re.compile(
            r"\b(?:read|open|cat|load|fetch|get|include|send|pass|copy|print|attach|upload|provide)\b[^\n]{0,60}?"
            r"(?:~/\.|/etc/passwd|/etc/shadow|\bid_rsa\b|\bid_ed25519\b|\.ssh/|\.aws/|\bmcp\.json\b"
            r"|\bsystem prompt\b)"
        ),
    ),
    _Order(
        "speaks as somebody else, in tags",
        ("<", "["),
        re.compile(
            r"<\s{0,4}/?\s{0,4}(?:important|system|secret|instructions?|hidden|assistant|critical|admin|override)"
            r"\s{0,4}>|\[/?(?:inst|system)\]|<\|(?:im_start|im_end|system|assistant|user)\|>"
        ),
    ),
    _Order(
        "gives the model another role",
        ("you are now", "your new"),
        re.compile(r"\byou are now (?:a|an|in|the|no longer)\b|\byour new (?:role|task|instructions?)\b"),
    ),
)

Flag = Mapping[str, str]


def flags(offers: Offers, others: Collection[Server], found: list[Flag]) -> Iterator[None]:
    """Find what is suspicious in a server's offers, in steps of a few milliseconds; at most MAX_FLAGS, the last counts.

    `found` takes `{"place", "what", "detail"}`; `what` is `hidden`, `orders` or `look_alike`. `others` are the servers
    whose names it must not look like.
    """
    count = 0
    for place, text in _texts(offers):
        for flag in _of_text(place, text):
            yield
            if flag is not None:
                count += 1
                if count <= MAX_FLAGS:
                    found.append(flag)
    for flag in _look_alikes(offers, others):
        yield
        if flag is not None:
            count += 1
            if count <= MAX_FLAGS:
                found.append(flag)
    if count > MAX_FLAGS:
        found[-1] = {"place": "", "what": "more", "detail": f"{count - MAX_FLAGS + 1} more"}


def _of_text(place: str, text: str) -> Iterator[Flag | None]:
    """What is suspicious in one text, once of each sort; None after each piece."""
    left = [_HIDDEN, *(order.what for order in _ORDERS)]
    for start in range(0, max(1, len(text)), _PIECE):
        if _HIDDEN in left and (first := hidden(text, start, start + _PIECE)) is not None:
            left.remove(_HIDDEN)
            at, what = first
            detail = f"{what} at character {at + 1}: {_around(text, at)}"
            yield {"place": place[:_MAX_PLACE], "what": _HIDDEN, "detail": detail}
        piece = text[start : start + _PIECE + _OVERLAP]
        lower = piece.lower()
        for order in _ORDERS:
            if order.what not in left or not any(word in lower for word in order.words):
                continue
            if (match := order.pattern.search(lower)) is not None:
                left.remove(order.what)
                detail = f"{order.what}: {_around(piece, match.start())}"
                yield {"place": place[:_MAX_PLACE], "what": "orders", "detail": detail}
        yield None


def _around(text: str, at: int) -> str:
    """The text at a place, short and with everything visible."""
    start = max(0, at - _SHOWN // 4)
    shown = " ".join(visible(text[start : start + _SHOWN]).split())
    return f"{'…' if start else ''}{shown}{'…' if start + _SHOWN < len(text) else ''}"


def _texts(offers: Offers) -> Iterator[tuple[str, str]]:
    """All texts of what is offered, with their places."""
    if offers.instructions:
        yield "instructions", offers.instructions
    for kind, identity in ((kind.name, kind.identity) for kind in KINDS.values()):
        for item in getattr(offers, kind):
            yield from _inside(f"{kind}[{_step(item[identity])}]", item)


def _inside(place: str, value: Any) -> Iterator[tuple[str, str]]:
    """The texts in a value, also the names of its members; not by recursion, since JSON is nested as anybody likes."""
    waiting: list[tuple[str, Any]] = [(place, value)]
    while waiting:
        at, each = waiting.pop()
        if isinstance(each, str):
            yield at, each
        elif isinstance(each, Mapping):
            for name, member in each.items():
                if name not in _SKIPPED or not isinstance(member, str):
                    waiting.append((f"{at}.{_step(name)}"[: 2 * _MAX_PLACE], member))
                if not (name.isascii() and name.isidentifier()):
                    yield f"{at}.{_step(name)}", name
        elif isinstance(each, list | tuple):
            waiting += [(f"{at}[{number}]"[: 2 * _MAX_PLACE], member) for number, member in enumerate(each)]


def _step(name: str) -> str:
    return " ".join(visible(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…").split())


def _look_alikes(offers: Offers, others: Collection[Server]) -> Iterator[Flag | None]:
    """Tools and prompts whose names can be taken for other ones, of other servers or of its own."""
    for kind in ("tools", "prompts"):
        own = {item["name"]: skeleton(item["name"]) for item in getattr(offers, kind)}
        looks = set(own.values())
        alike: dict[str, list[tuple[str, str]]] = {}
        for name, look in own.items():
            alike.setdefault(look, []).append(("of its own", name))
        for server in others:
            yield None
            for item in server.listed(kind):
                if (look := skeleton(item["name"])) in looks:
                    alike[look].append((f"of server {server.name!r}", item["name"]))
        for name, look in own.items():
            yield None
            for whose, other in alike[look]:
                if other != name:
                    detail = f"looks like {_step(other)!r}, {whose}"
                    yield {"place": f"{kind}[{_step(name)}]", "what": "look_alike", "detail": detail}
                    break
