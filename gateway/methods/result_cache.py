"""Results that are given again for a while, where an override says so (`cache`): of tools that only read or may repeat.

Each worker keeps its own, bounded in bytes; those used longest ago go first. A tool that is not believed to read only,
or to be idempotent, is called each time; an error is never kept.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gateway.errors import GatewayError
from gateway.model.parts import Target
from gateway.protocol.messages import Reply

_MAX_BYTES = 32 << 20
_MAX_RESULT = 1 << 20
_AROUND = 400  # bytes that an entry takes beside its result


class ResultCache:
    """The results of this worker, by what was asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._size = 0

    def key(self, target: Target, params: Mapping[str, Any], caller: str) -> bytes | None:
        """What a call's result is kept under; None where it is not kept."""
        policy = None if target.overridden is None else target.overridden.override.get("cache")
        if policy is None or not (target.is_believed("readOnlyHint") or target.is_believed("idempotentHint")):
            return None
        who = caller if policy["per"] == "caller" else None
        plan = target.server.offers.plans.get(target.local)  # of an API: what the name means by now
        asked = [target.server.spec.fingerprint, target.local, plan, params.get("arguments"), who]
        try:
            return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).digest()
        except TypeError:
            return None

    def get(self, key: bytes) -> Any:
        """The result that is kept; None for none."""
        found = self._kept.get(key)
        if found is None or found[0] <= self._clock():
            return None
        self._kept.move_to_end(key)
        return orjson.loads(found[1])

    def put(self, key: bytes, target: Target, reply: Reply) -> None:
        """Keep a result that is no error, for as long as its override says."""
        if target.overridden is None or reply.is_tool_error:
            return
        if reply.raw is not None and len(reply.raw) > _MAX_RESULT:
            return
        try:
            if not isinstance(reply.result, Mapping):
                return
        except GatewayError:  # it passes on as it came, and can't be read again
            return
        data = bytes(memoryview(reply.raw if reply.raw is not None else orjson.dumps(reply.result)))  # without slack
        if len(data) > _MAX_RESULT:
            return
        self._drop(key)
        self._kept[key] = self._clock() + target.overridden.override["cache"]["ttl"], data
        self._size += len(data) + _AROUND
        while self._size > _MAX_BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        found = self._kept.pop(key, None)
        self._size -= 0 if found is None else len(found[1]) + _AROUND
