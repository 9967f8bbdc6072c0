"""Redis records of sessions: what a signed id can't hold. They must not be lost while Redis lives.

Every operation is bounded in time, and after a failure all of them fail at once for a moment, so that a frozen Redis
slows nothing down. Knows keys and bytes; nothing of upstreams or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from gateway.errors import TooManyRequests
from gateway.protocol.exchange import Handshake

_WAIT_SECONDS = 2.0
_CONNECTIONS = 48
_DOWN_SECONDS = 2.0
_ANSWERED_SECONDS = 60
_CLAIM_SECONDS = 60

log = logging.getLogger("gateway.records")

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
_SETTLE = """
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


class RecordsUnavailable(Exception):
    """Redis does not answer."""


@dataclass(frozen=True, slots=True)
class UpstreamSession:
    """A client session's own session with one server.

    `handle` names it without revealing its id, `fingerprint` is that of the specification it was opened with, and
    `holder` the worker that alone can carry its messages, where there is one.
    """

    handle: str
    session_id: str | None
    handshake: Handshake
    fingerprint: str
    holder: str | None = None

    def to_bytes(self) -> bytes:
        shake = self.handshake
        return orjson.dumps(
            [
                self.handle,
                self.session_id,
                [shake.version, shake.capabilities, shake.server_info, shake.instructions],
                self.fingerprint,
                self.holder,
            ]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> UpstreamSession:
        handle, session_id, shake, fingerprint, holder = orjson.loads(data)
        return cls(handle, session_id, Handshake(*shake), fingerprint, holder)


@dataclass(frozen=True, slots=True)
class Record:
    """One client session as Redis holds it; `subscriptions` are pairs of server and its own URI."""

    principal: str
    version: str
    expires: int
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    client_info: Mapping[str, Any] = field(default_factory=dict)
    level: str | None = None
    upstream: Mapping[str, UpstreamSession] = field(default_factory=dict)
    subscriptions: frozenset[tuple[str, str]] = frozenset()


class Records:
    """The records of all client sessions, by the key that `Session.key` is."""

    def __init__(self, url: str, prefix: str) -> None:
        self._redis = redis.Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=_WAIT_SECONDS,
            socket_connect_timeout=_WAIT_SECONDS,
            max_connections=_CONNECTIONS + 8,
            client_name="mcp-gateway",
        )
        self._prefix = prefix
        self._gate = asyncio.Semaphore(_CONNECTIONS)
        self._down_until = 0.0
        self._create = self._redis.register_script(_CREATE)
        self._settle = self._redis.register_script(_SETTLE)
        self._claim = self._redis.register_script(_CLAIM)
        self._change = self._redis.register_script(_CHANGE)
        self.round_trips = 0

    async def close(self) -> None:
        try:
            async with asyncio.timeout(1):
                await self._redis.aclose()
        except (TimeoutError, RedisError, OSError):
            pass

    async def do(
        self, work: Callable[[Any], Awaitable[Any]], seconds: float = _WAIT_SECONDS, *, bulk: bool = False
    ) -> Any:
        """Do something with Redis (its types are too loose to follow), within a bound.

        A burst waits for its turn, as long as that. What is `bulk` may take long without saying anything of Redis.
        Raises RecordsUnavailable.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._gate.acquire()
        except TimeoutError:
            log.warning("too much waits for Redis")
            raise RecordsUnavailable from None
        try:
            if time.monotonic() < self._down_until:
                raise RecordsUnavailable
            self.round_trips += 1
            try:
                async with asyncio.timeout(seconds):
                    return await work(self._redis)
            except ResponseError:
                log.exception("Redis refused a command")
                raise RecordsUnavailable from None
            except (TimeoutError, RedisError, OSError) as error:
                if not bulk:
                    self._down_until = time.monotonic() + _DOWN_SECONDS
                log.warning("Redis does not answer: %s", type(error).__name__)
                raise RecordsUnavailable from None
        finally:
            self._gate.release()

    def key(self, *parts: str) -> str:
        """A key of this gateway's in Redis."""
        return ":".join((self._prefix, *parts))

    async def create(self, key: str, record: Record, deadline: float, cap: int) -> None:
        """Keep a new session's record. Raises TooManyRequests or RecordsUnavailable."""
        fields = {
            "principal": record.principal,
            "version": record.version,
            "expires": str(record.expires),
            "capabilities": orjson.dumps(record.capabilities),
            "client": orjson.dumps(record.client_info),
        }
        keys = [self.key("session", key), self.key("live"), self.key("mine", record.principal)]
        flat = [part for pair in fields.items() for part in pair]
        arguments: list[Any] = [key, deadline, record.expires, cap, time.time(), *flat]
        if not await self.do(lambda _: self._create(keys=keys, args=arguments)):
            raise TooManyRequests(
                f"You have {cap} sessions already (GATEWAY_MAX_SESSIONS); end some with DELETE, or let them expire."
            )

    async def read(self, key: str) -> Record | None:
        """The record of a session, None if there is none. Raises RecordsUnavailable."""
        values: dict[bytes, bytes] = await self.do(lambda store: store.hgetall(self.key("session", key)))
        return _record(values) if b"version" in values else None

    async def upstream(self, key: str, server: str) -> UpstreamSession | None:
        """A session's own session with a server. Raises RecordsUnavailable."""
        name = f"up:{server}"
        value: bytes | None = await self.do(lambda store: store.hget(self.key("session", key), name))
        return UpstreamSession.from_bytes(value) if value else None

    async def settle(
        self, key: str, server: str, made: UpstreamSession, before: UpstreamSession | None
    ) -> UpstreamSession | None:
        """Keep the session made with a server unless another worker was first; return the one that holds.

        None if the client session has ended. Raises RecordsUnavailable.
        """
        arguments: list[Any] = [f"up:{server}", before.to_bytes() if before else b"", made.to_bytes()]
        value: bytes | None = await self.do(lambda _: self._settle(keys=[self.key("session", key)], args=arguments))
        return UpstreamSession.from_bytes(value) if value else None

    async def change(self, key: str, fields: Mapping[str, str]) -> bool:
        """Set fields of a record; False if the session has ended. Raises RecordsUnavailable."""
        flat: list[Any] = [part for pair in fields.items() for part in pair]
        return bool(await self.do(lambda _: self._change(keys=[self.key("session", key)], args=flat)))

    async def forget(self, key: str, *fields: str) -> None:
        """Drop fields of a record. Raises RecordsUnavailable."""
        await self.do(lambda store: store.hdel(self.key("session", key), *fields))

    async def once(self, what: str) -> bool:
        """True for the first that says this. Raises RecordsUnavailable."""
        name = self.key("once", what)
        return bool(await self.do(lambda store: store.set(name, b"", nx=True, ex=_ANSWERED_SECONDS)))

    async def remove(self, key: str) -> Record | None:
        """Drop a session's record and return it; None if somebody else did. Raises RecordsUnavailable."""

        async def drop(store: Any) -> dict[bytes, bytes] | None:
            async with store.pipeline() as pipe:
                pipe.hgetall(self.key("session", key))
                pipe.delete(self.key("session", key))
                pipe.zrem(self.key("live"), key)
                values, deleted, _ = await pipe.execute()
            return values if deleted else None

        values = await self.do(drop)
        if not values or b"version" not in values:
            return None
        record = _record(values)
        await self.do(lambda store: store.zrem(self.key("mine", record.principal), key))
        return record

    async def keep_alive(self, deadlines: Mapping[str, float]) -> None:
        """Put off the end of sessions that were used. Raises RecordsUnavailable."""
        if deadlines:
            await self.do(lambda store: store.zadd(self.key("live"), dict(deadlines), xx=True, gt=True))

    async def overdue(self, now: float, limit: int) -> list[str]:
        """Claim sessions whose time has come: nobody else gets the same. Raises RecordsUnavailable."""

        found = await self.do(lambda _: self._claim(keys=[self.key("live")], args=[now, limit, now + _CLAIM_SECONDS]))
        return [key.decode() for key in found]

    async def acknowledge(self, token: str) -> None:
        """Count one more worker that heard something. Raises RecordsUnavailable."""
        key = self.key("heard", token)

        async def count(store: Any) -> None:
            async with store.pipeline() as pipe:
                pipe.incr(key)
                pipe.expire(key, 10)
                await pipe.execute()

        await self.do(count)

    async def acknowledged(self, token: str) -> int:
        """How many workers heard something. Raises RecordsUnavailable."""
        return int(await self.do(lambda store: store.get(self.key("heard", token))) or 0)

    async def answers(self) -> bool:
        """Tell whether Redis answers."""
        try:
            return bool(await self.do(lambda store: store.ping()))
        except RecordsUnavailable:
            return False

    async def count(self) -> int:
        """How many sessions there are. Raises RecordsUnavailable."""
        return int(await self.do(lambda store: store.zcard(self.key("live"))))

    async def beat(self, worker: str, seconds: float) -> None:
        """Say that a worker lives. Raises RecordsUnavailable."""
        await self.do(lambda store: store.set(self.key("worker", worker), b"", px=int(seconds * 1000)))

    async def lives(self, worker: str) -> bool:
        """Tell whether a worker said so lately. Raises RecordsUnavailable."""
        return bool(await self.do(lambda store: store.exists(self.key("worker", worker))))


def _record(values: Mapping[bytes, bytes]) -> Record:
    named = {name.decode(): value for name, value in values.items()}
    return Record(
        principal=named["principal"].decode(),
        version=named["version"].decode(),
        expires=int(named["expires"]),
        capabilities=orjson.loads(named["capabilities"]),
        client_info=orjson.loads(named["client"]),
        level=named["level"].decode() if "level" in named else None,
        upstream={name[3:]: UpstreamSession.from_bytes(value) for name, value in _starting(named, "up:")},
        subscriptions=frozenset(
            (server, uri) for name, _ in _starting(named, "sub:") for server, _, uri in [name[4:].partition("\n")]
        ),
    )


def _starting(named: Mapping[str, bytes], prefix: str) -> Iterable[tuple[str, bytes]]:
    return ((name, value) for name, value in named.items() if name.startswith(prefix))


def subscription(server: str, uri: str) -> str:
    """The field that records a subscription."""
    return f"sub:{server}\n{uri}"
