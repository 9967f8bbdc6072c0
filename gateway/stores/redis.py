"""Redis, bounded: every operation ends in time, and a Redis that does not answer slows nothing down.

After a failure all operations fail at once for a moment. A burst waits for its turn at a gate. Knows keys and bytes;
what is kept under them is its users' business (`event_log`, `inbox`, the sessions' records).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

_WAIT_SECONDS = 2.0
_CONNECTIONS = 48
_DOWN_SECONDS = 2.0
_ANSWERED_SECONDS = 60
_BEAT_SECONDS = 1.5
_DEAD_SECONDS = 5.0
_SAY_AGAIN_SECONDS = 60.0
_LEAVE_SECONDS = 1.0

log = logging.getLogger("gateway.redis")

Script = Callable[..., Awaitable[Any]]


class RedisUnavailable(Exception):
    """Redis does not answer, or refused a command."""


def raise_if_replica(answer: object) -> None:
    """Raise what a command among several was answered with, if a replica said it: all are to be tried again."""
    if isinstance(answer, ReadOnlyError):
        raise answer


class Redis:
    """One worker's way to Redis; `prefix` begins every key, so that gateways can share one."""

    def __init__(self, url: str, prefix: str) -> None:
        # No timeout of the socket: it would end what is bulk before its time; `do` bounds each operation as a whole.
        self._redis = redis.Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=_WAIT_SECONDS,
            max_connections=_CONNECTIONS + 8,
            client_name="mcp-gateway",
        )
        self._prefix = prefix
        self._gate = asyncio.Semaphore(_CONNECTIONS)
        self._down_until = 0.0
        self._lost_at: float | None = None
        self._refused_at: float | None = None
        self._left_at: float | None = None
        self._left_calls: list[Callable[[], None]] = []
        parts = urlsplit(url)
        self._where = (parts.hostname and f"{parts.hostname}:{parts.port or 6379}") or parts.path
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
        Raises RedisUnavailable.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._gate.acquire()
        except TimeoutError:
            log.warning("too much waits for Redis")
            raise RedisUnavailable from None
        try:
            if time.monotonic() < self._down_until:
                raise RedisUnavailable
            self.round_trips += 1
            try:
                async with asyncio.timeout(seconds):
                    answer = await work(self._redis)
                if self._lost_at is not None:
                    log.info("Redis answers again")
                    self._lost_at = None
                return answer
            except ReadOnlyError:
                await self._leave()
                raise RedisUnavailable from None
            except ResponseError as error:
                now = time.monotonic()
                if self._refused_at is None or now - self._refused_at > _SAY_AGAIN_SECONDS:
                    self._refused_at = now
                    log.warning("Redis refused a command: %s", _cause(error), exc_info=True)
                raise RedisUnavailable from None
            except (TimeoutError, RedisError, OSError) as error:
                if not bulk:
                    self.rest(_DOWN_SECONDS)
                now = time.monotonic()
                if self._lost_at is None or now - self._lost_at > _SAY_AGAIN_SECONDS:
                    self._lost_at = now
                    log.warning("Redis does not answer at %s: %s", self._where, _cause(error))
                raise RedisUnavailable from None
        finally:
            self._gate.release()

    async def _leave(self) -> None:
        """Make all connections anew: this server became a replica, and the address leads to another one by now."""
        now = time.monotonic()
        if self._left_at is not None and now - self._left_at < _LEAVE_SECONDS:
            return
        if self._left_at is None or now - self._left_at > _SAY_AGAIN_SECONDS:
            log.warning("Redis is connected to anew: it takes no writes")
        self._left_at = now
        await self._redis.connection_pool.disconnect(inuse_connections=False)
        for call in self._left_calls:
            call()

    def on_leave(self, call: Callable[[], None]) -> None:
        """Have `call` told when Redis is connected to anew."""
        self._left_calls.append(call)

    def key(self, *parts: str) -> str:
        """A key of this gateway's in Redis."""
        return ":".join((self._prefix, *parts))

    def rest(self, seconds: float) -> None:
        """Leave Redis alone for so long: every operation fails at once."""
        self._down_until = time.monotonic() + seconds

    def script(self, text: str) -> Script:
        """A Lua script to be run within `do`: `await script(keys=…, args=…)`."""
        made: Script = self._redis.register_script(text)
        return made

    async def once(self, what: str) -> bool:
        """True for the first that says this. Raises RedisUnavailable."""
        name = self.key("once", what)
        return bool(await self.do(lambda store: store.set(name, b"", nx=True, ex=_ANSWERED_SECONDS)))

    async def acknowledge(self, token: str) -> None:
        """Count one more worker that heard something. Raises RedisUnavailable."""
        key = self.key("heard", token)

        async def increment(store: Any) -> None:
            async with store.pipeline() as pipe:
                pipe.incr(key)
                pipe.expire(key, 10)
                await pipe.execute()

        await self.do(increment)

    async def acknowledged(self, token: str) -> int:
        """How many workers heard something. Raises RedisUnavailable."""
        return int(await self.do(lambda store: store.get(self.key("heard", token))) or 0)

    async def answers(self) -> bool:
        """Tell whether Redis answers."""
        try:
            return bool(await self.do(lambda store: store.ping()))
        except RedisUnavailable:
            return False

    async def takes_writes(self) -> bool:
        """Tell whether Redis answers, and is no replica."""
        try:
            return bool(await self.do(lambda store: store.set(self.key("write"), b"", px=1000)))
        except RedisUnavailable:
            return False

    async def beat(self, worker: str, seconds: float) -> None:
        """Say that a worker lives. Raises RedisUnavailable."""
        await self.do(lambda store: store.set(self.key("worker", worker), b"", px=int(seconds * 1000)))

    async def keep_beating(self, *workers: str) -> None:
        """Say that these workers live, until cancelled."""
        while True:
            try:
                for worker in workers:
                    await self.beat(worker, _DEAD_SECONDS)
            except RedisUnavailable:
                pass
            await asyncio.sleep(_BEAT_SECONDS)

    async def lives(self, worker: str) -> bool:
        """Tell whether a worker said so lately. Raises RedisUnavailable."""
        return bool(await self.do(lambda store: store.exists(self.key("worker", worker))))


def _cause(error: BaseException) -> str:
    """The system's own words, without addresses that may hold a password."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    return type(error).__name__
