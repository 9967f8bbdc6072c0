"""Results that are kept for a while, in Redis, so that any worker can read on: bounded in sum, the oldest go first.

Each belongs to one principal; for others it is not there. Who keeps more than a quarter of the sum pushes out what is
its own, and is the first to make room for others. Knows bytes only.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from gateway.stores.redis import Redis

_READ_SECONDS = 10.0

_LEAST_COUNTED = 4_096  # bytes that a result counts at least, so that many small ones are bounded, too

_SHARE = 4  # who keeps more than one part in so many makes room, for itself and for others
_LOOKS = 32  # of the oldest results, for one of somebody who keeps that much

# The index has each result's size, owner and handle by when it ends, and each owner has one of its own; the sums, of
# all and by owner, stand beside them, so that keeping one more costs the same however many there are. Where Redis let
# go of the sums alone they are counted anew.
_KEEP = """
local index, sums, own = KEYS[1], KEYS[3], KEYS[4]
local now, size, most, owner = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[8]
local share, looks = most / tonumber(ARGV[10]), tonumber(ARGV[11])
local function of(whose) return tonumber(redis.call('HGET', sums, whose) or '0') end
local function add(whose, more)
  redis.call('HINCRBY', sums, '', more)
  if redis.call('HINCRBY', sums, whose, more) <= 0 then redis.call('HDEL', sums, whose) end
end
local function forget(member)
  local counted, whose, ref = string.match(member, '^(%d+):(.*):([^:]*)$')
  redis.call('ZREM', index, member)
  redis.call('ZREM', ARGV[9] .. whose, member)
  redis.call('DEL', ARGV[6] .. ref)
  add(whose, -tonumber(counted))
end
if redis.call('EXISTS', sums) == 0 then
  for _, member in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    local counted, whose = string.match(member, '^(%d+):(.*):([^:]*)$')
    add(whose, tonumber(counted))
  end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now)) do forget(member) end
while of('') + size > most do
  local first
  if of(owner) + size > share then
    first = redis.call('ZRANGE', own, 0, 0)[1]
  elseif looks > 0 then
    for _, member in ipairs(redis.call('ZRANGE', index, 0, looks - 1)) do
      if of(string.match(member, '^%d+:(.*):[^:]*$')) > share then first = member break end
    end
    if not first then looks = 0 end
  end
  first = first or redis.call('ZRANGE', index, 0, 0)[1]
  if not first then redis.call('DEL', sums) break end
  forget(first)
end
local member = size .. ':' .. owner .. ':' .. ARGV[7]
redis.call('SET', KEYS[2], ARGV[5], 'EX', ARGV[4])
for _, each in ipairs({index, own}) do
  redis.call('ZADD', each, now + tonumber(ARGV[4]), member)
  redis.call('EXPIRE', each, ARGV[4])
end
add(owner, size)
redis.call('EXPIRE', sums, ARGV[4])
"""


class Spills:
    """The results that are kept."""

    def __init__(self, redis: Redis, seconds: int, most: int) -> None:
        """Each for `seconds`, at most `most` bytes in sum over all replicas."""
        self._redis = redis
        self.seconds = seconds
        self._most = most
        self._script = redis.script(_KEEP)

    async def keep(self, principal: str, data: bytes) -> str | None:
        """Keep data for a principal; the handle by which it is read, or None for what is too large at all.

        Raises RedisUnavailable.
        """
        if len(data) > self._most:
            return None
        ref = secrets.token_urlsafe(18)
        value = principal.encode() + b"\0" + data
        index = self._redis.key("spill-index")
        own = self._redis.key("spill-index", principal)
        keys = [index, self._redis.key("spill", ref), self._redis.key("spill-sums"), own]
        args = [
            time.time(),
            max(len(value), _LEAST_COUNTED),
            self._most,
            self.seconds,
            value,
            self._redis.key("spill", ""),
            ref,
            principal,
            self._redis.key("spill-index", ""),
            _SHARE,
            _LOOKS,
        ]

        async def put(_: Any) -> None:
            await self._script(keys=keys, args=args)

        await self._redis.do(put, _READ_SECONDS, bulk=True)
        return ref

    async def read(self, principal: str, ref: str) -> bytes | None:
        """What is kept under a handle for this principal; None for nothing. Raises RedisUnavailable."""
        key = self._redis.key("spill", ref)
        found = await self._redis.do(lambda store: store.get(key), _READ_SECONDS, bulk=True)
        owner, _, data = (found or b"").partition(b"\0")
        return data if found is not None and owner == principal.encode() else None
