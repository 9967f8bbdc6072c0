"""The ids under which an upstream's requests travel to a client, and its answers find their way back.

An id names server, upstream session and the upstream's own id, and is signed for one client session: whichever replica
gets the answer knows where it belongs, and an answer without a question is recognized.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import orjson

from gateway.model.keyring import Keyring, SealBroken

_PURPOSE = "question"


@dataclass(frozen=True, slots=True)
class Question:
    """What an upstream asked: `handle` is its session with us, `id` its own id (or progress token)."""

    server: str
    handle: str
    id: str | int


class UnknownQuestion(ValueError):
    """An id that was not given out here, or not to this session."""


class QuestionIds:
    """Writes and reads the ids."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def write(self, session: str, question: Question) -> str:
        """The id toward the client of a session; the same for the same question."""
        text = orjson.dumps([question.server, question.handle, question.id])
        signed = self._keyring.sign(_PURPOSE, _bound(session) + text)
        return base64.urlsafe_b64encode(signed[len(_bound(session)) :]).rstrip(b"=").decode()

    def read(self, session: str, id: object) -> Question:
        """What an id stands for. Raises UnknownQuestion."""
        if not isinstance(id, str) or len(id) > 8192:
            raise UnknownQuestion
        try:
            signed = base64.b64decode(id + "=" * (-len(id) % 4), altchars=b"-_", validate=True)
            text = self._keyring.verify(_PURPOSE, _bound(session) + signed)
            server, handle, asked = orjson.loads(text[len(_bound(session)) :])
        except (SealBroken, binascii.Error, ValueError):
            raise UnknownQuestion from None
        question = Question(server, handle, asked)
        if self.write(session, question) != id:
            raise UnknownQuestion  # another spelling would be answered once more
        return question


def _bound(session: str) -> bytes:
    return session.encode() + b"\0"
