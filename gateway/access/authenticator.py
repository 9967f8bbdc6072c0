"""Who is asking: the credential of a request becomes a principal.

One credential for now, the master key (and one that opens the figures alone).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from urllib.parse import parse_qsl

from gateway.errors import KeyInQuery, Unauthorized
from gateway.model.principals import Principal

_UNKNOWN_KEY = "The key is not one of this gateway's. Check the Authorization header."
_QUERY_KEYS = frozenset(
    {
        "key",
        "api_key",
        "apikey",
        "api-key",
        "token",
        "access_token",
        "auth",
        "authorization",
        "master_key",
        "bearer",
    }
)


class Authenticator:
    """Knows the credentials and turns one into a principal, in constant time."""

    def __init__(self, master_key: str, metrics_key: str | None = None) -> None:
        """`metrics_key` opens the figures and nothing else."""
        self._master = hashlib.sha256(master_key.encode()).digest()
        self._metrics = None if metrics_key is None else hashlib.sha256(metrics_key.encode()).digest()
        self._administrator = Principal("master", self._master.hex()[:16], administrator=True)

    def identify(self, authorization: Iterable[str], query: bytes) -> Principal:
        """Find the principal of a request. Raises Unauthorized or KeyInQuery."""
        if not hmac.compare_digest(_digest(authorization, query), self._master):
            raise Unauthorized(_UNKNOWN_KEY, wrong=True)
        return self._administrator

    def check_metrics(self, authorization: Iterable[str], query: bytes) -> None:
        """Let whoever may read the figures pass. Raises Unauthorized or KeyInQuery."""
        digest = _digest(authorization, query)
        is_metrics = self._metrics is not None and hmac.compare_digest(digest, self._metrics)
        if not is_metrics and not hmac.compare_digest(digest, self._master):
            raise Unauthorized(_UNKNOWN_KEY, wrong=True)


def _digest(authorization: Iterable[str], query: bytes) -> bytes:
    """The digest of the key that a request carries. Raises Unauthorized or KeyInQuery."""
    if query:
        _refuse_keys(query)
    values = list(authorization)
    if len(values) != 1:
        raise Unauthorized if not values else Unauthorized("Send one Authorization header, not several.")
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized
    return hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()


def _refuse_keys(query: bytes) -> None:
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name.lower() in _QUERY_KEYS:
            raise KeyInQuery(name)
