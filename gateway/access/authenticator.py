"""Who is asking: the credential of a request becomes a principal.

One credential for now, the master key (and one that opens the figures alone).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256
from urllib.parse import parse_qsl

from gateway.errors import KeyInQuery, Unauthorized
from gateway.model.principals import Principal
from gateway.protocol.headers import Headers

_AUTHORIZATION, _BEARER = b"authorization", b"Bearer "
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
    """Knows the credentials by their digests, and turns one into a principal.

    A digest is looked up in a table: how long that takes says nothing of a key, since nobody can choose a digest.
    """

    def __init__(self, master_key: str, metrics_key: str | None = None) -> None:
        """`metrics_key` opens the figures and nothing else."""
        master = sha256(master_key.encode()).digest()
        self._metrics = None if metrics_key is None else sha256(metrics_key.encode()).digest()
        administrator = Principal("master", master.hex()[:16], administrator=True, servers=None)
        self._principals = {master: administrator}

    def identify(self, headers: Headers, query: bytes) -> Principal:
        """Find the principal of a request. Raises Unauthorized or KeyInQuery."""
        if query:
            _refuse_keys(query)
        value = headers.values.get(_AUTHORIZATION)
        if value is not None and value.startswith(_BEARER) and not headers.is_repeated:
            principal = self._principals.get(sha256(value[len(_BEARER) :]).digest())
            if principal is not None:
                return principal
        return self._identify(headers.all(_AUTHORIZATION))

    def _identify(self, authorization: Sequence[str]) -> Principal:
        """The same for what is written otherwise, or refused."""
        scheme, _, token = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            raise _without_key(authorization)
        principal = self._principals.get(sha256(token.strip().encode("utf-8", "surrogateescape")).digest())
        if principal is None:
            raise Unauthorized(_UNKNOWN_KEY, wrong=True)
        return principal

    def check_metrics(self, headers: Headers, query: bytes) -> None:
        """Let requests pass that may read the figures. Raises Unauthorized or KeyInQuery."""
        authorization = headers.all(_AUTHORIZATION)
        key = "".join(authorization).partition(" ")[2].strip().encode("utf-8", "surrogateescape")
        is_metrics = self._metrics is not None and hmac.compare_digest(sha256(key).digest(), self._metrics)
        if query:
            _refuse_keys(query)
        if not is_metrics or len(authorization) != 1:
            self.identify(headers, query)


def _without_key(authorization: Sequence[str]) -> Unauthorized:
    if len(authorization) > 1:
        return Unauthorized("Send one Authorization header, not several.")
    return Unauthorized()


def _refuse_keys(query: bytes) -> None:
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name.lower() in _QUERY_KEYS:
            raise KeyInQuery(name)
