"""The records of client sessions in Redis: what a signed session id can't hold. They
must not be lost while Redis lives.

A record is one hash: what the client said of itself, its log level, its subscriptions, and for each server the upstream
session that the client's requests travel on. Two workers may open one for the same server at once; `compare_and_set`
decides which holds. A sorted set (`live`) has the deadline of each session, another one per principal counts them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.errors import SessionNotFound, TooManyRequests
from gateway.protocol.exchange import Handshake
from gateway.stores.redis import Redis, RedisUnavailable
from gateway.upstream.contract import UpstreamSession

_CLAIM_SECONDS = 60

# KEYS: session, live, mine. ARGV: session's key, deadline, expiry, cap, now, then fields and values.
_CREATE = """
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[5])
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 6))
redis.call('EXPIREAT', KEYS[1], ARGV[3] + 600)
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
redis.call('EXPIREAT', KEYS[3], ARGV[3])
return 1
"""

# KEYS: session. ARGV: field, the value that is to be replaced ('' for none), the new value.
_COMPARE_AND_SET = """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local current = redis.call('HGET', KEYS[1], ARGV[1])
if (current or '') ~= ARGV[2] then return current or '' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return ARGV[3]
"""

# KEYS: live. ARGV: now, how many, until when they are claimed. Who claims and dies leaves them to the next.
_CLAIM = """
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, key in ipairs(found) do redis.call('ZADD', KEYS[1], ARGV[3], key) end
return found
"""

# KEYS: session. ARGV: fields and values.
_CHANGE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
"""


@dataclass(frozen=True, slots=True)
class UpstreamRecord:
    """A client session's own session with one server.

    `handle` names it without revealing its id, `fingerprint` is that of the specification it was opened with.
    """

    handle: str
    session: UpstreamSession
    fingerprint: str
    read: bytes | None = field(default=None, compare=False, repr=False)
    """What it was read from, which `compare_and_set` compares: a newer version may have written more."""

    def to_bytes(self) -> bytes:
        if self.read is not None:
            return self.read
        shake = self.session.handshake
        return orjson.dumps(
            [
                self.handle,
                self.session.session_id,
                [shake.version, shake.capabilities, shake.server_info, shake.instructions],
                self.fingerprint,
                self.session.holder,
            ]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> UpstreamRecord:
        handle, session_id, shake, fingerprint, holder, *_ = orjson.loads(data)
        return cls(handle, UpstreamSession(Handshake(*shake[:4]), session_id, holder), fingerprint, bytes(data))


@dataclass(frozen=True, slots=True)
class Record:
    """One client session as Redis holds it; `subscriptions` are pairs of server and its own URI."""

    principal: str
    version: str
    expires: int
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    client_info: Mapping[str, Any] = field(default_factory=dict)
    level: str | None = None
    upstream: Mapping[str, UpstreamRecord] = field(default_factory=dict)
    subscriptions: frozenset[tuple[str, str]] = frozenset()


class Records:
    """The records of all client sessions, by the key that `SessionId.key` is."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._create = redis.script(_CREATE)
        self._compare_and_set = redis.script(_COMPARE_AND_SET)
        self._claim = redis.script(_CLAIM)
        self._change = redis.script(_CHANGE)

    async def create(self, key: str, record: Record, deadline: float, cap: int) -> None:
        """Keep a new session's record. Raises TooManyRequests or RedisUnavailable."""
        fields = {
            "principal": record.principal,
            "version": record.version,
            "expires": str(record.expires),
            "capabilities": orjson.dumps(record.capabilities),
            "client": orjson.dumps(record.client_info),
        }
        keys = [self._redis.key("session", key), self._redis.key("live"), self._redis.key("mine", record.principal)]
        flat = [part for pair in fields.items() for part in pair]
        arguments: list[Any] = [key, deadline, record.expires, cap, time.time(), *flat]
        if not await self._redis.do(lambda _: self._create(keys=keys, args=arguments)):
            raise TooManyRequests(
                f"You have {cap} sessions already (GATEWAY_MAX_SESSIONS); end some with DELETE, or let them expire."
            )

    async def read(self, key: str) -> Record | None:
        """The record of a session, None if there is none. Raises RedisUnavailable."""
        values: dict[bytes, bytes] = await self._redis.do(lambda store: store.hgetall(self._redis.key("session", key)))
        return _record(values) if b"version" in values else None

    async def compare_and_set(
        self, key: str, server: str, made: UpstreamRecord, before: UpstreamRecord | None
    ) -> UpstreamRecord | None:
        """Keep the session made with a server unless another worker was first; return the one that holds.

        None if the client session has ended. Raises RedisUnavailable.
        """
        arguments: list[Any] = [f"up:{server}", before.to_bytes() if before else b"", made.to_bytes()]
        value: bytes | None = await self._redis.do(
            lambda _: self._compare_and_set(keys=[self._redis.key("session", key)], args=arguments)
        )
        return UpstreamRecord.from_bytes(value) if value else None

    async def change(self, key: str, fields: Mapping[str, str]) -> bool:
        """Set fields of a record; False if the session has ended. Raises RedisUnavailable."""
        flat: list[Any] = [part for pair in fields.items() for part in pair]
        return bool(await self._redis.do(lambda _: self._change(keys=[self._redis.key("session", key)], args=flat)))

    async def forget(self, key: str, *fields: str) -> None:
        """Drop fields of a record. Raises RedisUnavailable."""
        await self._redis.do(lambda store: store.hdel(self._redis.key("session", key), *fields))

    async def remove(self, key: str) -> Record | None:
        """Drop a session's record and return it; None if somebody else did. Raises RedisUnavailable."""

        async def drop(store: Any) -> dict[bytes, bytes] | None:
            async with store.pipeline() as pipe:
                pipe.hgetall(self._redis.key("session", key))
                pipe.delete(self._redis.key("session", key))
                pipe.zrem(self._redis.key("live"), key)
                values, deleted, _ = await pipe.execute()
            return values if deleted else None

        values = await self._redis.do(drop)
        if not values or b"version" not in values:
            return None
        record = _record(values)
        with suppress(RedisUnavailable):  # it is counted until it would have expired
            await self._redis.do(lambda store: store.zrem(self._redis.key("mine", record.principal), key))
        return record

    async def extend_deadlines(self, deadlines: Mapping[str, float]) -> None:
        """Put off the end of sessions that were used. Raises RedisUnavailable."""
        if deadlines:
            await self._redis.do(lambda store: store.zadd(self._redis.key("live"), dict(deadlines), xx=True, gt=True))

    async def overdue(self, now: float, limit: int) -> list[str]:
        """Claim sessions whose time has come: no other worker gets the same. Raises RedisUnavailable."""
        found = await self._redis.do(
            lambda _: self._claim(keys=[self._redis.key("live")], args=[now, limit, now + _CLAIM_SECONDS])
        )
        return [key.decode() for key in found]

    async def count(self) -> int:
        """How many sessions there are. Raises RedisUnavailable."""
        return int(await self._redis.do(lambda store: store.zcard(self._redis.key("live"))))


_MAX_READS = 5  # of a record that this worker changes meanwhile


class LocalRecord:
    """The record of one session as one worker knows it, and whether Redis knows it too.

    *shared*: Redis had it when this worker last looked. *unwritten*: the session was opened here while Redis did not
    answer. *offline*: it was opened elsewhere, and Redis did not answer when it came here, so that nothing is known of
    what its client declared. Unwritten and offline ones are settled when Redis answers again (`Sessions.find`).
    """

    def __init__(self, records: Records, key: str, record: Record, gone: Callable[[str], None]) -> None:
        """`gone` is told of the key when Redis turns out to have no record (any more): the session is over."""
        self._records = records
        self._gone = gone
        self.key = key
        self.record = record
        self.is_shared = True
        self.offline = False
        self._writes = 0
        """Counts the writes of this worker that began or ended: what was read meanwhile may be older than ours."""

    def went_offline(self) -> None:
        """Redis did not answer when the session came here: nothing is known of what its client declared."""
        self.is_shared, self.offline = False, True

    def was_not_written(self) -> None:
        """Redis did not answer when the session was opened here."""
        self.is_shared = False

    def settled(self) -> None:
        """Redis answers again, and has the record."""
        self.is_shared, self.offline = True, False

    async def refresh(self) -> Record | None:
        """Read the record; None where Redis does not have it or does not answer. Raises SessionNotFound."""
        if not self.is_shared:
            return None
        for _ in range(_MAX_READS):
            writes = self._writes
            try:
                record = await self._records.read(self.key)
            except RedisUnavailable:
                return None
            if record is None:
                raise self._over()
            if writes == self._writes:
                self.record = record
                return record
        return None

    async def change(self, fields: Mapping[str, str]) -> bool:
        """Set fields of the record; False where Redis does not have it or does not answer. Raises SessionNotFound."""
        if not self.is_shared:
            return True
        self._writes += 1
        try:
            if await self._records.change(self.key, fields):
                return True
        except RedisUnavailable:
            return False
        finally:
            self._writes += 1
        raise self._over()

    async def forget(self, field: str) -> bool:
        """Drop a field of the record; False where Redis does not answer."""
        self._writes += 1
        try:
            await self._records.forget(self.key, field)
        except RedisUnavailable:
            return False
        finally:
            self._writes += 1
        return True

    async def compare_and_set(
        self, server: str, made: UpstreamRecord, before: UpstreamRecord | None
    ) -> UpstreamRecord | None:
        """Put an upstream session on record unless another worker was first; return the one that holds.

        None if the session has ended. Raises RedisUnavailable, also where Redis does not have the record.
        """
        if not self.is_shared:
            raise RedisUnavailable
        return await self._records.compare_and_set(self.key, server, made, before)

    def _over(self) -> SessionNotFound:
        self._gone(self.key)
        return SessionNotFound()


def _record(values: Mapping[bytes, bytes]) -> Record:
    named = {name.decode(): value for name, value in values.items()}
    return Record(
        principal=named["principal"].decode(),
        version=named["version"].decode(),
        expires=int(named["expires"]),
        capabilities=orjson.loads(named["capabilities"]),
        client_info=orjson.loads(named["client"]),
        level=named["level"].decode() if "level" in named else None,
        upstream={name[3:]: UpstreamRecord.from_bytes(value) for name, value in _starting(named, "up:")},
        subscriptions=frozenset(
            (server, uri) for name, _ in _starting(named, "sub:") for server, _, uri in [name[4:].partition("\n")]
        ),
    )


def _starting(named: Mapping[str, bytes], prefix: str) -> Iterable[tuple[str, bytes]]:
    return ((name, value) for name, value in named.items() if name.startswith(prefix))


def subscription(server: str, uri: str) -> str:
    """The field that records a subscription."""
    return f"sub:{server}\n{uri}"
