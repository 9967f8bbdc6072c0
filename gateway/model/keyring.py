"""Secrets at rest and state that leaves the house: sealed (AES-256-GCM) or signed (HMAC-SHA-256).

Each purpose has a key of its own, derived from the gateway's secret; a key id allows rotation: the first secret
seals and signs, all of them open and verify. The only importer of cryptography.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway import version

_KEY_ID = 4
_NONCE = 12
_MAC = 16


class SealBroken(ValueError):
    """Not sealed or signed by us, for another purpose, or with a secret we no longer have."""


class Keyring:
    """The gateway's secrets, newest first, with a key per purpose."""

    def __init__(self, secrets: Sequence[bytes], random: Callable[[int], bytes] = os.urandom) -> None:
        self._secrets = {hashlib.sha256(b"key id" + secret).digest()[:_KEY_ID]: secret for secret in secrets}
        self._current = next(iter(self._secrets))
        self._random = random
        self._derived: dict[tuple[bytes, str], bytes] = {}
        self._keyed: dict[str, hashlib.blake2b] = {}

    @property
    def identity(self) -> str:
        """A name for a gateway with these secrets, as long as it has no other."""
        return f"{version.NAME}-{self._current.hex()}"

    def seal(self, purpose: str, text: bytes, context: str = "") -> bytes:
        """Encrypt and authenticate; the same purpose and context open it."""
        nonce = self._random(_NONCE)
        sealed = AESGCM(self._key(self._current, purpose)).encrypt(nonce, text, context.encode())
        return self._current + nonce + sealed

    def is_current(self, sealed: bytes) -> bool:
        """Whether something was sealed with the newest secret."""
        return sealed[:_KEY_ID] == self._current

    def open(self, purpose: str, sealed: bytes, context: str = "") -> bytes:
        """Decrypt what `seal` made. Raises SealBroken."""
        key_id, nonce = sealed[:_KEY_ID], sealed[_KEY_ID : _KEY_ID + _NONCE]
        if key_id not in self._secrets or len(nonce) < _NONCE:
            raise SealBroken("sealed with an unknown secret; is GATEWAY_SECRET the one it was stored with?")
        try:
            return AESGCM(self._key(key_id, purpose)).decrypt(nonce, sealed[_KEY_ID + _NONCE :], context.encode())
        except InvalidTag:
            raise SealBroken("tampered with, or sealed for another purpose") from None

    def sign(self, purpose: str, text: bytes) -> bytes:
        """Append key id and MAC to `text`."""
        return text + self._current + self._mac(self._current, purpose, text)

    def digest(self, purpose: str, text: bytes) -> str:
        """A digest that only who has the newest secret can make: BLAKE2b with a key (RFC 7693), in hexadecimal."""
        keyed = self._keyed.get(purpose)
        if keyed is None:
            key = self._key(self._current, purpose)
            keyed = self._keyed[purpose] = hashlib.blake2b(digest_size=_MAC, key=key)
        made = keyed.copy()  # which has taken the key in already
        made.update(text)
        return made.hexdigest()

    def verify(self, purpose: str, signed: bytes) -> bytes:
        """Return the text that `sign` signed. Raises SealBroken."""
        text, key_id, mac = signed[: -_MAC - _KEY_ID], signed[-_MAC - _KEY_ID : -_MAC], signed[-_MAC:]
        if key_id not in self._secrets or not hmac.compare_digest(mac, self._mac(key_id, purpose, text)):
            raise SealBroken("not signed by us")
        return text

    def _mac(self, key_id: bytes, purpose: str, text: bytes) -> bytes:
        return hmac.digest(self._key(key_id, purpose), text, "sha256")[:_MAC]

    def _key(self, key_id: bytes, purpose: str) -> bytes:
        if (key := self._derived.get((key_id, purpose))) is None:
            derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"mcp-gateway {purpose}".encode())
            key = self._derived[key_id, purpose] = derive.derive(self._secrets[key_id])
        return key
