"""Names to addresses: look-ups on threads of their own, so that names which hang cost nobody else.

The system's look-up blocks a thread until it answers, which no time-out ends, and uvloop has few of them. Here each
look-up is a daemon thread; a name has one at most, however many wait for it, and a worker some dozens. What was found
is good for half a minute. After that it is looked up anew; where that hangs or fails for now, what was known serves on
for an hour. Whether an address may be connected to is asked each time, by `Vetting`.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from gateway.model.address_policy import Address

_FRESH_SECONDS = 30.0
_STALE_SECONDS = 3600.0
_HANGS_SECONDS = 0.5  # after which a look-up counts as hanging, if there is something known
_FAILED_SECONDS = 1.0  # that a failure is remembered
_AT_ONCE = 64  # names
_REMEMBERED = 1_000  # names


class NotResolved(OSError):
    """The name server knows no address for a name, now; `is_final` if it says that there is none."""

    def __init__(self, text: str, *, is_final: bool) -> None:
        super().__init__(0, text)
        self.is_final = is_final


@dataclass(slots=True)
class _Known:
    """What a name led to. States: fresh (until `fresh_until`), stale (until `known_until`)."""

    addresses: list[Address]
    fresh_until: float
    known_until: float


def system_lookup(host: str) -> list[Address]:
    """Ask the system for all addresses of a name; blocks. Raises NotResolved."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        is_final = isinstance(error, UnicodeError) or error.errno in (
            socket.EAI_NONAME,
            getattr(socket, "EAI_NODATA", 0),
        )
        raise NotResolved(f"the name {host!r} is not known", is_final=is_final) from error
    return list(dict.fromkeys(ip_address(str(address[0]).partition("%")[0]) for *_, address in found))


class Resolver:
    """One worker's look-ups and what they found."""

    def __init__(
        self,
        lookup: Callable[[str], list[Address]] = system_lookup,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup = lookup
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._failed: dict[str, tuple[float, NotResolved]] = {}
        self._under_way: dict[str, asyncio.Future[list[Address]]] = {}

    async def resolve(self, host: str) -> list[Address]:
        """All addresses of a name. Raises NotResolved; takes as long as the system does where nothing is known."""
        known, now = self._known.get(host), self._clock()
        if known is not None and now < known.fresh_until:
            return known.addresses
        if known is not None and now >= known.known_until:
            known = None
        failed = self._failed.get(host)
        if failed is not None and now < failed[0] + _FAILED_SECONDS:
            if known is not None and not failed[1].is_final:
                return known.addresses
            raise failed[1]
        looking = self._under_way.get(host) or self._look_up(host)
        if known is not None:
            await asyncio.wait({looking}, timeout=_HANGS_SECONDS)
            if not looking.done():
                return known.addresses
        try:
            return await asyncio.shield(looking)
        except NotResolved as error:
            if known is not None and not error.is_final:
                return known.addresses
            raise

    def _look_up(self, host: str) -> asyncio.Future[list[Address]]:
        if len(self._under_way) >= _AT_ONCE:
            raise NotResolved(f"the name {host!r} can't be looked up: {_AT_ONCE} look-ups hang", is_final=False)
        loop = asyncio.get_running_loop()
        looking = self._under_way[host] = loop.create_future()

        def found(result: list[Address] | NotResolved) -> None:
            self._under_way.pop(host, None)
            now = self._clock()
            if isinstance(result, NotResolved):
                self._failed[host] = now, result
                while len(self._failed) > _REMEMBERED:
                    del self._failed[next(iter(self._failed))]
                if result.is_final:
                    self._known.pop(host, None)
                looking.set_exception(result)
                looking.exception()  # who waited may all have left
                return
            self._failed.pop(host, None)
            self._known[host] = _Known(result, now + _FRESH_SECONDS, now + _STALE_SECONDS)
            self._known.move_to_end(host)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            looking.set_result(result)

        def work() -> None:
            try:
                result: list[Address] | NotResolved = self._lookup(host)
            except NotResolved as error:
                result = error
            except Exception as error:
                result = NotResolved(f"the name {host!r} can't be looked up ({type(error).__name__})", is_final=False)
            try:
                loop.call_soon_threadsafe(found, result)
            except RuntimeError:
                pass  # the loop is closed: the worker is on its way out

        threading.Thread(target=work, name=f"look-up {host}", daemon=True).start()
        return looking
