"""The kept connections to one origin: who gets one, who waits in line, and when one is let go of.

How to connect is the caller's (`dialer`), what goes over a connection its own (`http1_client`). An idle connection is
closed after `keepalive_seconds`, which is less than what servers keep; the one that was used last is used next. Who
finds none free, and no room for another one, waits in line; whatever becomes of a connection, its place goes to the
first in line.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import httpx

from gateway.net.http1_client import Connection, Response

Dial = Callable[[Callable[[], asyncio.Protocol]], Awaitable[None]]
"""Connects a protocol. Raises httpx.ConnectError or httpx.ConnectTimeout, or AddressRefused."""

_SEVERAL = 2  # requests under way, of which some may fall into one turn of the loop


class Connections:
    """The kept connections to one origin, at most `limit`; who finds none free waits in line, but not for long."""

    def __init__(self, dial: Dial, *, limit: int, keepalive_seconds: float, wait_seconds: float) -> None:
        self._dial = dial
        self._limit = limit
        self._keepalive_seconds = keepalive_seconds
        self._wait_seconds = wait_seconds
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._dialing = 0
        self._line: deque[asyncio.Future[Connection | None]] = deque()
        self._unsent: list[Connection] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self.loop = asyncio.get_running_loop()
        self.is_closed = False

    @property
    def busy(self) -> int:
        """How many carry a request now."""
        return len(self._all) - len(self._idle)

    def send(self, data: bytes) -> Awaitable[Response]:
        """Send a whole request and wait for the head of its answer. Raises httpx.TransportError, AddressRefused."""
        connection = self._free()
        return self._send(data) if connection is None else connection.begin(data).head()

    async def _send(self, data: bytes) -> Response:
        connection = await self._connected()
        return await connection.begin(data).head()

    async def take(self) -> Connection:
        """A connection for one request, which has to be begun at once. Raises httpx.TransportError, AddressRefused."""
        return self._free() or await self._connected()

    def close(self) -> None:
        """Close every connection, also those that carry a request."""
        self.is_closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._all):
            connection.fail(httpx.ReadError("the connections to it were closed"))
        for waiting in self._line:
            if not waiting.done():
                waiting.set_result(None)

    # --- what connections say -----------------------------------------------------------------------------------

    def made(self, connection: Connection) -> None:
        """A connection is there."""
        self._all.add(connection)

    def release(self, connection: Connection) -> None:
        """A connection is free for the next request."""
        if self.is_closed:
            connection.close()
            return
        while self._line:
            waiting = self._line.popleft()
            if not waiting.done():
                waiting.set_result(connection)
                return
        connection.idle_since = self.loop.time()
        self._idle.append(connection)
        if self._sweeping is None:
            self._sweeping = self.loop.call_later(self._keepalive_seconds, self._sweep)

    def flush_later(self, connection: Connection) -> bool:
        """Have a request written at the end of the loop's turn, together with others; False where it would be alone."""
        if len(self._all) - len(self._idle) < _SEVERAL:
            return False
        self._unsent.append(connection)
        if len(self._unsent) == 1:
            self.loop.call_soon(self._flush)
        return True

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        for connection in unsent:
            connection.flush()

    def lost(self, connection: Connection) -> None:
        """A connection is gone: the next in line may make another one."""
        if connection not in self._all:
            return
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._pass_on()

    def _pass_on(self) -> None:
        """Let the first in line make a connection, for which there is room now."""
        while self._line and len(self._all) + self._dialing < self._limit:
            waiting = self._line.popleft()
            if not waiting.done():
                self._dialing += 1  # held for it
                waiting.set_result(None)

    # --- finding one --------------------------------------------------------------------------------------------

    def _free(self) -> Connection | None:
        """The idle connection that was used last, if one is there and its server still keeps it."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable(self.loop.time()):
                return connection
            connection.close()
        return None

    async def _connected(self) -> Connection:
        """A new connection, or the next that becomes free."""
        self._check_open()
        if len(self._all) + self._dialing >= self._limit:
            found = await self._wait_in_line()
            if found is not None:
                return found
        else:
            self._dialing += 1
        made: list[Connection] = []

        def protocol() -> Connection:
            made.append(Connection(self))
            return made[-1]

        try:
            await self._dial(protocol)  # which may try several addresses
        except BaseException:
            for each in made:
                if each in self._all:
                    each.close()
            raise
        finally:
            self._dialing -= 1
            self._pass_on()
        connection = made[-1]
        if connection not in self._all:
            raise httpx.ReadError("the server closed the connection at once")
        if self.is_closed:
            connection.close()
        self._check_open()
        return connection

    def _check_open(self) -> None:
        if self.is_closed:
            raise httpx.ConnectError("the connections were closed")

    async def _wait_in_line(self) -> Connection | None:
        """A connection that became free, or None when there is room to make one (which is counted already)."""
        waiting: asyncio.Future[Connection | None] = self.loop.create_future()
        self._line.append(waiting)
        try:
            async with asyncio.timeout(self._wait_seconds):
                found = await waiting
        except BaseException as error:
            if waiting.done() and not waiting.cancelled():  # it came, too late
                self._give_back(waiting.result())
            elif waiting in self._line:
                self._line.remove(waiting)
            if isinstance(error, TimeoutError):
                raise httpx.PoolTimeout(
                    f"all {self._limit} connections to it were in use for {self._wait_seconds:g} s"
                ) from None
            raise
        self._check_open()
        return found

    def _give_back(self, found: Connection | None) -> None:
        if found is not None:
            self.release(found)
        elif not self.is_closed:
            self._dialing -= 1
            self._pass_on()

    def _sweep(self) -> None:
        """Close what was idle for too long; the oldest stand first."""
        self._sweeping = None
        now = self.loop.time()
        while self._idle and now - self._idle[0].idle_since >= self._keepalive_seconds - 0.01:
            self._idle[0].close()
        if self._idle:
            after = max(0.1, self._idle[0].idle_since + self._keepalive_seconds - now)
            self._sweeping = self.loop.call_later(after, self._sweep)
