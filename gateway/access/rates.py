"""Limits of calls over all workers: of a key, and of a server.

Redis counts: how many calls a subject may make now (a token bucket, as the time at which it will be full again), how
many it made today, how many each worker has under way. A worker takes calls from Redis some at a time (`Limits.lease`)
and the next ones before it needs them, so that a call below its limit waits for nothing. What a worker took and did
not use is lost to others: so many calls more or less than the limit can pass per worker. A subject that Redis refused
is refused here until the time that Redis named.

Places for `concurrent` calls are taken one at a time, and kept for a moment after a call. Workers say every two
seconds that they live; the places of one that did not for ten seconds are free.

While Redis is away each worker allows its part of a limit: that, divided by the workers that were there.
"""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.errors import LimitExceeded
from gateway.model.limits import Limits
from gateway.stores.redis import Redis, RedisUnavailable
from gateway.tasks import end

_BEAT_SECONDS = 2.0
_DEAD_SECONDS = 10
_RARE_SECONDS = 1.0
_IDLE_SECONDS = 60.0  # after which a subject is forgotten here
_KEPT_SECONDS = 1.0  # for which a place is kept after a call

_TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local rate, most, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local day, left = tonumber(ARGV[4]), tonumber(ARGV[5])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local count = wanted
if rate > 0 then
  if full > now + most / rate then
    full = now + most / rate
    redis.call('SET', KEYS[1], string.format('%.6f', full), 'PX', math.ceil((full - now) * 1000) + 1000)
  end
  count = math.min(count, math.floor(most - (full - now) * rate + 0.000001))
  if count < 1 then return {0, math.ceil((full - now - (most - 1) / rate) * 1000), 'calls_per_second'} end
end
if day > 0 then
  count = math.min(count, day - tonumber(redis.call('GET', KEYS[2]) or 0))
  if count < 1 then return {0, left * 1000, 'calls_per_day'} end
  redis.call('INCRBY', KEYS[2], count)
  redis.call('EXPIRE', KEYS[2], left + 60)
end
if rate > 0 then
  full = full + count / rate
  redis.call('SET', KEYS[1], string.format('%.6f', full), 'PX', math.ceil((full - now) * 1000) + 1000)
end
return {count, 0, ''}
"""
_PLACE = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[2], now, ARGV[1])
local taken, all = 0, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local seen = redis.call('ZSCORE', KEYS[2], all[i])
  if not seen or tonumber(seen) < now - tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], all[i])
  else
    taken = taken + tonumber(all[i + 1])
  end
end
if taken >= tonumber(ARGV[2]) then return 0 end
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('EXPIRE', KEYS[1], 86400)
return 1
"""
_BEAT = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, now - 6 * ARGV[2])
return redis.call('ZCOUNT', KEYS[1], now - ARGV[2], '+inf')
"""
_LOOK = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local taken, places = 0, redis.call('HVALS', KEYS[3])
for i = 1, #places do taken = taken + tonumber(places[i]) end
return {string.format('%.3f', full - now), tonumber(redis.call('GET', KEYS[2]) or 0), taken}
"""


class _Subject:
    """What this worker has of one subject."""

    __slots__ = (
        "calls",
        "day",
        "free",
        "full_at",
        "is_rare",
        "kept_until",
        "leased_at",
        "leasing",
        "limits",
        "places",
        "refused",
        "refused_until",
        "spent",
        "under_way",
        "used_at",
        "waiting",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.is_rare = True
        """Whether it calls so rarely that its next call is not taken before it comes."""
        self.calls = 0
        """Calls that were taken from Redis and not made yet."""
        self.waiting = 0
        self.spent = 0
        """Calls made since the last lease."""
        self.leased_at = 0.0
        self.leasing: asyncio.Task[None] | None = None
        self.refused = ""
        """The limit that Redis named last."""
        self.refused_until = 0.0
        self.places = 0
        """Places that are ours in Redis: those of calls under way, and kept ones."""
        self.under_way = 0
        self.kept_until = 0.0
        self.used_at = 0.0
        self.full_at = 0.0
        self.day = ("", 0)
        """Without Redis: when the bucket is full again, and how many calls there were on which day."""


class Rates:
    """The limits of all subjects, as this worker keeps them."""

    def __init__(self, redis: Redis, worker: str) -> None:
        self._redis = redis
        self._worker = worker
        self._take_script = redis.script(_TAKE)
        self._place_script = redis.script(_PLACE)
        self._beat_script = redis.script(_BEAT)
        self._look_script = redis.script(_LOOK)
        self._subjects: dict[str, _Subject] = {}
        self._workers = 1

    def enter_at_once(self, subject: str, limits: Limits) -> bool:
        """Count one call if that needs no wait, which is the rule for a subject below its limits; `leave` ends it.

        False where `enter` has to be awaited.
        """
        state = self._subjects.get(subject)
        if state is None or state.limits is not limits:
            return False
        if limits.concurrent is not None and state.under_way >= state.places:
            return False
        if limits.calls_per_second is not None or limits.calls_per_day is not None:
            if state.calls <= 0:
                return False
            state.calls -= 1
            state.spent += 1
            if state.calls == 0 and state.leasing is None and not state.is_rare:
                self._lease(subject, state)
        state.under_way += 1
        state.used_at = time.monotonic()
        return True

    async def enter(self, subject: str, limits: Limits) -> None:
        """Count one call of a subject, and hold a place for it; `leave` gives the place back. Raises LimitExceeded."""
        state = self._subjects.get(subject)
        if state is None:
            state = self._subjects[subject] = _Subject(limits)
        elif state.limits is not limits:
            if state.limits != limits:
                state.refused_until, state.calls = 0.0, 0
            state.limits = limits
        state.used_at = time.monotonic()
        if limits.concurrent is not None:
            await self._take_place(subject, state, limits.concurrent)
        else:
            state.under_way += 1
        try:
            if limits.calls_per_second is not None or limits.calls_per_day is not None:
                if state.calls > 0:
                    state.calls -= 1
                else:
                    await self._wait_for_call(subject, state)
                state.spent += 1
                if state.calls == 0 and state.leasing is None and not state.is_rare:
                    self._lease(subject, state)
        except BaseException:
            self.leave(subject)
            raise

    def leave(self, subject: str) -> None:
        """A call that entered is over."""
        state = self._subjects[subject]
        state.under_way -= 1
        state.kept_until = time.monotonic() + _KEPT_SECONDS

    async def left(self, subject: str, limits: Limits) -> dict[str, Any]:
        """What is left of limits now. Raises RedisUnavailable."""
        answer = await self._redis.do(lambda _: self._look_script(keys=self._keys(subject)))
        ahead, today, under_way = float(answer[0]), int(answer[1]), int(answer[2])
        found: dict[str, Any] = {}
        if limits.calls_per_second is not None:
            found["calls_at_once"] = max(
                0, min(limits.at_once, math.floor(limits.at_once - ahead * limits.calls_per_second))
            )
        if limits.calls_per_day is not None:
            found["calls_today"] = max(0, limits.calls_per_day - today)
        if limits.concurrent is not None:
            found["concurrent"] = max(0, limits.concurrent - under_way)
        return found

    async def run(self) -> None:
        """Say that this worker lives, give kept places back, forget idle subjects; until cancelled."""
        try:
            while True:
                try:
                    await self._beat()
                except RedisUnavailable:
                    pass  # each worker allows its part meanwhile
                await asyncio.sleep(_BEAT_SECONDS / 2)
        finally:
            await end([state.leasing for state in self._subjects.values() if state.leasing is not None])

    # --- calls ----------------------------------------------------------------------------------------------------

    async def _wait_for_call(self, subject: str, state: _Subject) -> None:
        while True:
            now = time.monotonic()
            if state.refused_until > now:
                raise LimitExceeded(subject, state.refused, state.limits.public(), state.refused_until - now)
            leasing = state.leasing or self._lease(subject, state)
            state.waiting += 1
            try:
                await asyncio.shield(leasing)
            finally:
                state.waiting -= 1
            if state.calls > 0:
                state.calls -= 1
                return

    def _lease(self, subject: str, state: _Subject) -> asyncio.Task[None]:
        task = state.leasing = asyncio.create_task(self._leased(subject, state))
        return task

    async def _leased(self, subject: str, state: _Subject) -> None:
        """Take calls from Redis: as many as were made in the last tenth of a second, within the lease."""
        limits, now = state.limits, time.monotonic()
        pace = state.spent / max(now - state.leased_at, 0.001) * 0.1
        wanted = max(1, min(limits.lease, max(state.waiting, math.ceil(pace))))
        state.is_rare = now - state.leased_at > _RARE_SECONDS
        state.leased_at, state.spent = now, 0
        try:
            count, wait, refused = await self._taken(subject, limits, wanted)
        except RedisUnavailable:
            count, wait, refused = self._taken_alone(state, limits)
        finally:
            state.leasing = None
        if state.limits is not limits:
            return  # they were changed meanwhile
        if count:
            state.calls += count
        else:
            state.refused, state.refused_until = refused, time.monotonic() + max(wait, 0.001)

    async def _taken(self, subject: str, limits: Limits, wanted: int) -> tuple[int, float, str]:
        """How many calls Redis gives; else for how many seconds it gives none, and which limit says so."""
        rate, day = limits.calls_per_second or 0, limits.calls_per_day or 0
        args = [rate, limits.at_once + limits.lease, wanted, day, _seconds_left()]
        answer = await self._redis.do(lambda _: self._take_script(keys=self._keys(subject)[:2], args=args))
        return int(answer[0]), int(answer[1]) / 1000, answer[2].decode()

    def _taken_alone(self, state: _Subject, limits: Limits) -> tuple[int, float, str]:
        """The same without Redis: one call of this worker's part."""
        now, part = time.monotonic(), max(1, self._workers)
        if limits.calls_per_second is not None:
            rate, most = limits.calls_per_second / part, max(1.0, limits.at_once / part)
            ahead = max(0.0, state.full_at - now)
            if most - ahead * rate < 1:
                return 0, ahead - (most - 1) / rate, "calls_per_second"
            state.full_at = now + ahead + 1 / rate
        if limits.calls_per_day is not None:
            today = _today()
            made = state.day[1] if state.day[0] == today else 0
            if made >= max(1, limits.calls_per_day // part):
                return 0, float(_seconds_left()), "calls_per_day"
            state.day = (today, made + 1)
        return 1, 0.0, ""

    def _keys(self, subject: str) -> list[str]:
        key = self._redis.key
        return [key("rate", subject), key("day", subject, _today()), key("places", subject)]

    # --- places ---------------------------------------------------------------------------------------------------

    async def _take_place(self, subject: str, state: _Subject, most: int) -> None:
        if state.under_way >= state.places:
            try:
                got = await self._redis.do(
                    lambda _: self._place_script(
                        keys=[self._keys(subject)[2], self._redis.key("workers")],
                        args=[self._worker, most, _DEAD_SECONDS],
                    )
                )
                state.places += int(got)
            except RedisUnavailable:
                got = state.under_way < max(1, most // max(1, self._workers))
            if not got and state.under_way >= state.places:
                raise LimitExceeded(subject, "concurrent", state.limits.public(), 1.0)
        state.under_way += 1

    async def _beat(self) -> None:
        now = time.monotonic()
        counts: dict[str, int] = {}
        for name, state in self._subjects.items():
            if state.limits.concurrent is not None:
                if state.kept_until <= now or state.places < state.under_way:  # more went on while Redis was away
                    state.places = state.under_way
                counts[name] = state.places
            elif state.places:
                counts[name] = state.places = 0

        async def write(store: Any) -> None:
            async with store.pipeline(transaction=False) as pipe:
                for name, count in counts.items():
                    key = self._redis.key("places", name)
                    _ = pipe.hset(key, self._worker, count) if count else pipe.hdel(key, self._worker)
                await pipe.execute()

        beat = lambda _: self._beat_script(keys=[self._redis.key("workers")], args=[self._worker, _DEAD_SECONDS])  # noqa: E731
        self._workers = max(1, int(await self._redis.do(beat)))
        if counts:
            await self._redis.do(write)
        idle = [name for name, state in self._subjects.items() if _is_idle(state, now)]
        for name in idle:
            del self._subjects[name]


def _is_idle(state: _Subject, now: float) -> bool:
    has_todays = state.calls > 0 and state.limits.calls_per_day is not None
    is_used = state.under_way or state.places or state.waiting or state.leasing is not None or has_todays
    return not is_used and max(state.used_at + _IDLE_SECONDS, state.refused_until) < now


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _seconds_left() -> int:
    """Seconds until the next day."""
    now = datetime.now(UTC)
    tomorrow = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return math.ceil((tomorrow - now).total_seconds())
