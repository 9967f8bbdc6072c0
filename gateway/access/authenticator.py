"""Who is asking: the credential of a request becomes a principal.

Credentials are the master key and the keys of `key_table`, of which every worker holds all in memory: a call costs one
look-up of a digest. They are read with the registry, at the same hints (`registry/sync`): a key that was revoked
anywhere is refused here as soon as the change was read, and what it has open is ended (`on_change`).

States of a key: *live*; *expired*; *revoked*, which is told from unknown for thirty days, to who holds the secret.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from heapq import heappop, heappush
from urllib.parse import parse_qsl
from weakref import WeakValueDictionary

import orjson

from gateway.access.key_table import KeyRow, KeyTable
from gateway.access.limits import EXPIRED, REPLACED, REVOKED, KeyEnd
from gateway.errors import InvalidParams, KeyInQuery, StoreUnavailable, Unauthorized
from gateway.model.api_keys import what_is_wrong
from gateway.model.grants import NOTHING, Grants, read_grants
from gateway.model.limits import Limits, read_limits
from gateway.model.principals import MASTER, ROLES, Principal
from gateway.protocol.headers import Headers
from gateway.stores.postgres import Connection

_AUTHORIZATION, _BEARER = b"authorization", b"Bearer "
_UNKNOWN_KEY = "The key is not one of this gateway's. Check the Authorization header."
_RECORD_SECONDS = 20.0
_LOOK_SECONDS = 0.5
_MAX_LIMITS = 1_000  # different ones that are kept once for all keys that have them
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

log = logging.getLogger("gateway.keys")

Changed = Callable[[str, Principal | None, KeyEnd | None], None]
"""Told of a principal's id, what it is now (None: its key is no longer taken), and why what it has open ends."""


class Authenticator:
    """Knows the credentials by their digests, and turns one into a principal.

    A digest is looked up in a table: how long that takes says nothing of a key, since nobody can choose a digest.
    """

    def __init__(
        self,
        master_keys: Sequence[str],
        metrics_key: str | None = None,
        *,
        table: KeyTable | None = None,
        look: Callable[[], Awaitable[object]] | None = None,
        default_limits: Limits | None = None,
        changed: Changed = lambda id, principal, end: None,
    ) -> None:
        """`metrics_key` opens the figures and nothing else; `look` has keys read that were made a moment ago."""
        self._metrics = None if metrics_key is None else sha256(metrics_key.encode()).digest()
        master = Principal(MASTER, MASTER, role="admin")
        self._masters = {sha256(key.encode()).digest(): master for key in master_keys}
        self._principals = dict(self._masters)
        self._revoked: set[bytes] = set()
        self._digests: dict[str, tuple[bytes, ...]] = {}
        self._grants: WeakValueDictionary[str, Grants] = WeakValueDictionary()
        self._limits: dict[str, Limits] = {}
        self._default_limits = default_limits
        self._ending: list[tuple[float, str]] = []
        self._used: dict[str, float] = {}
        self._table = table
        self._look = look
        self._on_change = changed
        self._waiting: dict[str, asyncio.Event] = {}
        self._revision = -1

    def __len__(self) -> int:
        """How many keys there are, beside the master key."""
        return len(self._digests)

    # --- requests -------------------------------------------------------------------------------------------------

    def known(self, headers: Headers, query: bytes) -> Principal | None:
        """The principal of a request, if its key is sent as usual and known here. Raises KeyInQuery or Unauthorized."""
        if query:
            _refuse_keys(query)
        value = headers.values.get(_AUTHORIZATION)
        if value is None or headers.is_repeated or not value.startswith(_BEARER):
            return None
        principal = self._principals.get(sha256(value[len(_BEARER) :]).digest())
        if principal is None or principal.ends is None:
            return principal
        return self._checked(principal)

    async def identify(self, headers: Headers, query: bytes) -> Principal:
        """Find the principal of any request, also of a key that was made a moment ago.

        Raises Unauthorized or KeyInQuery.
        """
        if query:
            _refuse_keys(query)
        authorization = headers.all(_AUTHORIZATION)
        scheme, _, token = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            raise _without_key(authorization)
        text = token.strip()
        digest = sha256(text.encode("utf-8", "surrogateescape")).digest()
        principal = self._principals.get(digest)
        if principal is None:
            wrong = what_is_wrong(text)
            if wrong is None and digest not in self._revoked and self._look is not None:
                await self._look()
                principal = self._principals.get(digest)
            if principal is None:
                if digest in self._revoked:
                    raise Unauthorized(REVOKED.text, wrong=True)
                raise Unauthorized(f"{_UNKNOWN_KEY} {wrong or ''}".strip(), wrong=True)
        return self._checked(principal)

    def _checked(self, principal: Principal) -> Principal:
        """Note the use of a key that has not expired. Raises Unauthorized."""
        now = time.time()
        if principal.ends is not None:
            if principal.ends <= now:
                raise Unauthorized(EXPIRED.text, wrong=True)
            self._used[principal.id] = now
        return principal

    def proof(self, principal: Principal, text: str) -> str:
        """What a session that was opened with a key remembers of it: of the master key a digest, since it has no id."""
        return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16] if principal.ends is None else ""

    def by_proof(self, id: str, proof: str) -> Principal | None:
        """Whose a session is; None when its key is no longer taken. Raises Unauthorized if it has expired."""
        if id == MASTER:
            return next((each for digest, each in self._masters.items() if digest.hex()[:16] == proof), None)
        digests = self._digests.get(id)
        return None if digests is None else self._checked(self._principals[digests[0]])

    async def check_metrics(self, headers: Headers, query: bytes) -> Principal | None:
        """Let requests pass that may read the figures: None for the key that is for them alone.

        Raises Unauthorized or KeyInQuery.
        """
        authorization = headers.all(_AUTHORIZATION)
        key = "".join(authorization).partition(" ")[2].strip().encode("utf-8", "surrogateescape")
        is_metrics = self._metrics is not None and hmac.compare_digest(sha256(key).digest(), self._metrics)
        if query:
            _refuse_keys(query)
        if is_metrics and len(authorization) == 1:
            return None
        return await self.identify(headers, query)

    def current(self, principal: Principal) -> Principal | None:
        """What a principal is now; None when its key is no longer taken."""
        digests = self._digests.get(principal.id)
        if digests is None:
            return principal if principal.ends is None else None
        return self._principals.get(digests[0])

    async def changed_since(self, principal: Principal) -> Principal | None:
        """Wait until a principal is another than this; return it, None when its key is no longer taken."""
        while (now := self.current(principal)) is principal:
            await self._waiting.setdefault(principal.id, asyncio.Event()).wait()
        return now

    def _changed(self, id: str, principal: Principal | None, end: KeyEnd | None) -> None:
        self._on_change(id, principal, end)
        if (waiting := self._waiting.pop(id, None)) is not None:
            waiting.set()

    # --- the keys -------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read all keys: at the start, and when another database stands behind the address. Raises StoreUnavailable."""
        if self._table is None:
            return
        before, seen = set(self._digests), set[str]()

        def take(row: KeyRow) -> None:
            seen.add(row.id)
            self._take(row)

        self._revision = await self._table.load(take)
        for id in before - seen:
            self._forget(id)
            self._changed(id, None, REVOKED)

    async def catch_up(self, connection: Connection) -> None:
        """Read the keys that changed since the last look, in the snapshot of a transaction."""
        if self._table is None or self._revision < 0:
            return
        revision = await self._table.revision(connection)
        if revision > self._revision:
            for row in await self._table.changes_since(connection, self._revision):
                self._take(row)
        self._revision = revision if revision >= self._revision else -1

    def _forget(self, id: str) -> tuple[bytes, ...]:
        digests = self._digests.pop(id, ())
        for digest in digests:
            self._principals.pop(digest, None)
        return digests

    def _take(self, row: KeyRow) -> None:
        """Take in a key as it is now."""
        now, known = time.time(), self._digests.get(row.id, ())
        former = self._principals.get(known[0]) if known else None
        taken = [each for each in known if (self._principals[each].ends or 0) > now]
        before, digest = self._forget(row.id), bytes.fromhex(row.digest)
        if row.is_revoked:
            self._revoked.update((*before, digest))
            if former is not None:
                self._changed(row.id, None, REVOKED)
            return
        role = row.role if row.role in ROLES else "user"
        grants = None if role != "user" else self._interned(row)
        ends = math.inf if row.expires_at is None else row.expires_at
        principal = self._principals[digest] = Principal(row.id, row.name, role, grants, self._limits_of(row), ends)
        self._digests[row.id] = (digest,)
        if not math.isinf(ends):
            heappush(self._ending, (ends, row.id))
        if row.old_digest is not None and row.old_until is not None:
            old = bytes.fromhex(row.old_digest)
            self._principals[old] = replace(principal, ends=min(row.old_until, ends))
            heappush(self._ending, (min(row.old_until, ends), row.id))
            self._digests[row.id] = (digest, old)
        is_replaced = any(each not in self._digests[row.id] for each in taken)
        if former is not None and (is_replaced or former != principal):
            self._changed(row.id, principal, REPLACED if is_replaced else None)

    def _limits_of(self, row: KeyRow) -> Limits | None:
        if row.limits is None:
            return self._default_limits
        found = self._limits.get(row.limits)
        if found is None:
            try:
                found = self._limits[row.limits] = read_limits(orjson.loads(row.limits)) or Limits()
            except InvalidParams:  # of a newer version, say
                log.warning("the limits of key %s can't be read here: it has the default ones", row.id)
                return self._default_limits
            if len(self._limits) > _MAX_LIMITS:
                self._limits.clear()
        return found

    def _interned(self, row: KeyRow) -> Grants:
        """Grants that many keys have in common are kept once."""
        if row.grants is None:
            return NOTHING
        found = self._grants.get(row.grants)
        if found is None:
            try:
                found = read_grants(orjson.loads(row.grants))
            except InvalidParams:  # of a newer version, say
                log.warning("the grants of key %s can't be read here: it sees nothing", row.id)
                return NOTHING
            self._grants[row.grants] = found
        return found

    async def run(self) -> None:
        """End what expired keys have open, and record the use of keys, until cancelled; then record the rest."""
        due = time.monotonic() + _RECORD_SECONDS
        try:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                for id, principal, end in self._ended(time.time()):
                    self._changed(id, principal, end)
                if self._revision < 0:
                    await self._load_again()
                if time.monotonic() >= due:
                    due = time.monotonic() + _RECORD_SECONDS
                    await self._record_use()
        finally:
            await self._record_use()

    def _ended(self, now: float) -> Iterable[tuple[str, Principal | None, KeyEnd]]:
        """The keys that have expired, and those whose old secret is not taken any more."""
        while self._ending and self._ending[0][0] <= now:
            ends, id = heappop(self._ending)
            principals = [self._principals[each] for each in self._digests.get(id, ())]
            if principals and principals[0].ends == ends:
                yield id, None, EXPIRED
            elif any(each.ends == ends for each in principals[1:]):
                yield id, principals[0], REPLACED

    async def _load_again(self) -> None:
        try:
            await self.load()
        except StoreUnavailable:
            pass  # what was known goes on

    async def _record_use(self) -> None:
        used, self._used = self._used, {}
        if used and self._table is not None:
            try:
                await self._table.record_use(used)
            except StoreUnavailable:
                self._used = used | self._used


def _without_key(authorization: Sequence[str]) -> Unauthorized:
    if len(authorization) > 1:
        return Unauthorized("Send one Authorization header, not several.")
    return Unauthorized()


def _refuse_keys(query: bytes) -> None:
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name.lower() in _QUERY_KEYS:
            raise KeyInQuery(name)
