"""What workers tell each other about sessions and errands over Redis pub/sub: a small union, JSON objects on the wire.

A word may be lost, double or late; what must not be missed stands in Postgres or in a record as well.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import orjson

from gateway.protocol.messages import Id


@dataclass(frozen=True, slots=True)
class SessionsEnded:
    """Sessions are over; each worker that hears it counts itself under `ack`."""

    keys: list[str]
    ack: str


@dataclass(frozen=True, slots=True)
class ListChanged:
    """A server said that one of its lists changed; `method` is its notification."""

    server: str
    method: str


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """A client cancelled its request, which some worker carries."""

    key: str
    id: Id


@dataclass(frozen=True, slots=True)
class GetStreamOpened:
    """A client opened its own stream; an older one of the session comes to its end."""

    key: str
    token: str


@dataclass(frozen=True, slots=True)
class QuestionAnswered:
    """A client answered a server's question; the call that waits for it has its usual time again."""

    key: str
    id: str


@dataclass(frozen=True, slots=True)
class UpstreamOpened:
    """A session has one more upstream session, which its own stream is to listen to."""

    key: str


@dataclass(frozen=True, slots=True)
class RecordChanged:
    """What a session's record says of its client changed."""

    key: str


@dataclass(frozen=True, slots=True)
class ErrandStopped:
    """The errand whose replies go to the stream `key` is wanted no more."""

    key: str


Word = (
    SessionsEnded
    | ListChanged
    | CancelRequest
    | GetStreamOpened
    | QuestionAnswered
    | UpstreamOpened
    | RecordChanged
    | ErrandStopped
)

_NAMES: dict[type[Word], str] = {
    SessionsEnded: "ended",
    ListChanged: "changed",
    CancelRequest: "cancel",
    GetStreamOpened: "listen",
    QuestionAnswered: "answered",
    UpstreamOpened: "upstream",
    RecordChanged: "record",
    ErrandStopped: "stop",
}
_KINDS: dict[str, type[Word]] = {name: kind for kind, name in _NAMES.items()}


def to_bytes(word: Word) -> bytes:
    """Write a word."""
    return orjson.dumps(
        {"what": _NAMES[type(word)], "key": "", **{each.name: getattr(word, each.name) for each in fields(word)}}
    )


def from_bytes(data: bytes) -> Word:
    """Read a word. Raises ValueError, KeyError or TypeError for what is none, of another version say."""
    value = orjson.loads(data)
    kind = _KINDS[value["what"]]
    return kind(**{each.name: value[each.name] for each in fields(kind)})
