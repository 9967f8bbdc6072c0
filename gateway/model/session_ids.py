"""MCP session ids: small, signed, self-describing, so that any worker of any replica can read them.

An id says its revision, whom and which address it belongs to, and when it ends. What it can't hold is in a record in
Redis (`records`). Source: MCP 2025-11-25, transports, session management.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.errors import SessionNotFound
from gateway.model.keyring import Keyring, SealBroken
from gateway.model.principals import Principal
from gateway.protocol import versions

_LAYOUT = struct.Struct(">BB8s16sI")  # format, revision, owner, random, expiry
_FORMAT = 1
_REVISIONS = (versions.V2024_11_05, versions.V2025_03_26, versions.V2025_06_18, versions.V2025_11_25)
_PURPOSE = "session"


@dataclass(frozen=True, slots=True)
class SessionId:
    """The id of one client's session at one address; `expires` is in seconds since the epoch."""

    text: str
    version: str
    expires: int
    key: str = field(init=False)
    """The name of the session's record: a digest, since a reader of Redis could use the id itself."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", hashlib.sha256(self.text.encode()).hexdigest()[:32])


class SessionIds:
    """Mint session ids and read them back."""

    def __init__(self, keyring: Keyring, seconds: int, random: Callable[[int], bytes] = os.urandom) -> None:
        self._keyring = keyring
        self._seconds = seconds
        self._random = random

    def mint(self, principal: Principal, address: str, version: str, now: float) -> SessionId:
        """Open a session of `principal` at `address`."""
        expires = int(now) + self._seconds
        text = _LAYOUT.pack(_FORMAT, _REVISIONS.index(version), _owner(principal, address), self._random(16), expires)
        signed = self._keyring.sign(_PURPOSE, text)
        return SessionId(_encode(signed), version, expires)

    def read(self, id: str, principal: Principal, address: str, now: float) -> SessionId:
        """Check an id. Raises SessionNotFound, whatever is wrong with it."""
        try:
            signed = base64.b64decode(id + "=" * (-len(id) % 4), altchars=b"-_", validate=True)
            text = self._keyring.verify(_PURPOSE, signed)
            form, revision, owner, _, expires = _LAYOUT.unpack(text)
        except (SealBroken, struct.error, binascii.Error, ValueError):
            raise SessionNotFound from None
        if _encode(signed) != id:  # another spelling of the same bytes would outlive the session's end
            raise SessionNotFound
        if form != _FORMAT or owner != _owner(principal, address) or expires <= now:
            raise SessionNotFound
        return SessionId(id, _REVISIONS[revision], expires)


def _encode(signed: bytes) -> str:
    return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()


def _owner(principal: Principal, address: str) -> bytes:
    return hashlib.sha256(f"{principal.id}\0{address}".encode()).digest()[:8]
