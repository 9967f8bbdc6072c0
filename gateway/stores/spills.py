"""Results that are kept for a while, in Redis, so that any worker can read on: bounded in sum, the oldest go first.

Each belongs to one principal; for others it is not there. Knows bytes only.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from gateway.stores.redis import Redis

_READ_SECONDS = 10.0

_LEAST_COUNTED = 4_096  # bytes that a result counts at least, so that many small ones are bounded, too

# The index has each result's size and handle by when it ends; the sum stands beside it, so that keeping one more costs
# the same however many there are. Where Redis let go of the sum alone it is counted anew.
_KEEP = """
local index, sums, now, size, most = KEYS[1], KEYS[3], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local function size_of(member) return tonumber(string.match(member, '^(%d+):')) end
local sum = tonumber(redis.call('GET', sums) or '-1')
if sum < 0 then
  sum = 0
  for _, member in ipairs(redis.call('ZRANGE', index, 0, -1)) do sum = sum + size_of(member) end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now)) do
  sum = sum - size_of(member)
  redis.call('ZREM', index, member)
end
while sum + size > most do
  local oldest = redis.call('ZRANGE', index, 0, 0)[1]
  if not oldest then sum = 0 break end
  sum = sum - size_of(oldest)
  redis.call('ZREM', index, oldest)
  redis.call('DEL', ARGV[6] .. string.match(oldest, ':(.*)$'))
end
redis.call('SET', KEYS[2], ARGV[5], 'EX', ARGV[4])
redis.call('ZADD', index, now + tonumber(ARGV[4]), size .. ':' .. ARGV[7])
redis.call('EXPIRE', index, ARGV[4])
redis.call('SET', sums, sum + size, 'EX', ARGV[4])
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
        keys = [self._redis.key("spills"), self._redis.key("spill", ref), self._redis.key("spilled")]
        args = [
            time.time(),
            max(len(value), _LEAST_COUNTED),
            self._most,
            self.seconds,
            value,
            self._redis.key("spill", ""),
            ref,
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
