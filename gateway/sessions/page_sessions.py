"""Sessions of browsers with the page: a signed id that stands for a key which was sent once.

An id says whose key it is and when it ends, so that any worker of any replica can read it. It ends with its key: the
principal is looked up at each request. That it was ended before its time is recorded where ended MCP sessions are, and
heard of in the same way (`ended`); a worker that does not know an id asks there once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Collection

import orjson

from gateway.access.authenticator import Authenticator
from gateway.errors import TooManyRequests
from gateway.model.keyring import Keyring, SealBroken
from gateway.model.principals import Principal
from gateway.sessions.ended import EndedSessions

SECONDS = 12 * 3600
_PURPOSE = "page session"
_MAX_KNOWN = 10_000
_MAX_LENGTH = 512
_MAX_FAILED, _FAILED_SECONDS = 10, 60.0


class Attempts:
    """How often signing in failed lately, by where it came from: a key can't be guessed, and is not tried for ever."""

    def __init__(self) -> None:
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def check(self, who: str) -> None:
        """Let those pass who failed seldom. Raises TooManyRequests."""
        since, count = self._failed.get(who, (0.0, 0))
        if count >= _MAX_FAILED and time.monotonic() - since < _FAILED_SECONDS:
            raise TooManyRequests("Signing in failed too often from here; wait a minute.")

    def failed(self, who: str) -> None:
        """Count a failure."""
        since, count = self._failed.pop(who, (0.0, 0))
        now = time.monotonic()
        self._failed[who] = (since, count + 1) if now - since < _FAILED_SECONDS else (now, 1)
        if len(self._failed) > _MAX_KNOWN:
            self._failed.popitem(last=False)


class PageSessions:
    """Opens, finds and ends them."""

    def __init__(self, keyring: Keyring, authenticator: Authenticator, ended: EndedSessions) -> None:
        self._keyring = keyring
        self._authenticator = authenticator
        self._ended = ended
        self._known: OrderedDict[str, tuple[str, str, float]] = OrderedDict()
        self.attempts = Attempts()

    def keys(self) -> Collection[str]:
        """What `ended` knows them by, of those that this worker knows."""
        return self._known.keys()

    def drop(self, key: str) -> None:
        """One of them ended elsewhere."""
        self._known.pop(key, None)

    def open(self, principal: Principal, text: str) -> str:
        """The id of a new session of a principal whose key is `text`."""
        proof = self._authenticator.proof(principal, text)
        expires = int(time.time()) + SECONDS
        value = orjson.dumps([principal.id, proof, os.urandom(12).hex(), expires])
        id = _encode(self._keyring.sign(_PURPOSE, value))
        self._remember(_key(id), (principal.id, proof, float(expires)))
        return id

    async def find(self, id: str) -> Principal | None:
        """Whose session it is; None if it is none, or over. Raises Unauthorized if its key has expired."""
        if len(id) > _MAX_LENGTH:
            return None
        key = _key(id)
        known = self._known.get(key)
        if known is None:
            known = self._read(id)
            if known is None or await self._ended.has(key):
                return None
            self._remember(key, known)
        owner, proof, expires = known
        if expires <= time.time() or key in self._ended:
            return None
        return self._authenticator.by_proof(owner, proof)

    async def end(self, id: str) -> None:
        """End a session everywhere; what is none is over already. Raises StoreUnavailable."""
        found = self._read(id) if len(id) <= _MAX_LENGTH else None
        if found is not None and found[2] > time.time():
            await self._ended.end(_key(id), found[2])
            self.drop(_key(id))

    def _remember(self, key: str, value: tuple[str, str, float]) -> None:
        self._known[key] = value
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)

    def _read(self, id: str) -> tuple[str, str, float] | None:
        try:
            signed = base64.b64decode(id + "=" * (-len(id) % 4), altchars=b"-_", validate=True)
            owner, proof, _, expires = orjson.loads(self._keyring.verify(_PURPOSE, signed))
        except (SealBroken, binascii.Error, ValueError):
            return None
        canonical = (
            base64.urlsafe_b64encode(signed).decode().rstrip("=") == id
        )  # another spelling would outlive its end
        return (owner, proof, float(expires)) if canonical else None


def _encode(signed: bytes) -> str:
    return base64.urlsafe_b64encode(signed).decode().rstrip("=")


def _key(id: str) -> str:
    return f"page {hashlib.sha256(id.encode()).hexdigest()[:32]}"
