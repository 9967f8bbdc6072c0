"""Hints over Redis pub/sub: they may be lost, double or late, and carry nothing but "look again".

The listener notices a frozen server by its own pings (redis-py's `listen()` does not) and counts every new
subscription as a hint, since whatever was said in between is lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.stores.words import Word, from_bytes, to_bytes
from gateway.tasks import end

_CHANNEL = "mcp-gateway:registry"
_SESSIONS = "mcp-gateway:sessions"
_CONNECTIONS = 12
_PING_SECONDS = 1.0
_SILENCE_SECONDS = 3.0
_TELL_SECONDS = 1.0
_PAUSE_SECONDS = (0.1, 0.2, 0.5, 1.0)

log = logging.getLogger("gateway.hints")


class Hints:
    """One connection that listens, a few that publish."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=_SILENCE_SECONDS,
            socket_connect_timeout=_SILENCE_SECONDS,
            max_connections=_CONNECTIONS + 4,
            client_name="mcp-gateway",
        )
        self._gate = asyncio.Semaphore(_CONNECTIONS)
        self._own = os.urandom(8)
        """What our own hints say: we know of our writes already."""
        self.connected = False
        self.round_trips = 0
        self._subscribed = asyncio.Event()
        self._leaving = asyncio.Event()

    async def first_contact(self, seconds: float) -> None:
        """Wait for the first subscription, but not for long: without Redis we begin all the same."""
        try:
            async with asyncio.timeout(seconds):
                await self._subscribed.wait()
        except TimeoutError:
            pass

    def leave(self) -> None:
        """Make all connections anew: what a replica is told nobody else hears."""
        self._leaving.set()

    async def close(self) -> None:
        try:
            async with asyncio.timeout(1):
                await self._redis.aclose()
        except (TimeoutError, RedisError, OSError):
            pass  # a frozen server must not hold up our end

    async def publish(self) -> bool:
        """Tell every worker to look again; False if Redis did not take it (they poll anyway)."""
        self.round_trips += 1
        try:
            async with asyncio.timeout(_SILENCE_SECONDS), self._gate:
                await self._redis.publish(_CHANNEL, self._own)
        except (TimeoutError, RedisError, OSError) as error:
            log.warning("hint not published, workers will see it when they poll: %s", type(error).__name__)
            return False
        return True

    async def broadcast(self, word: Word) -> int:
        """Tell every worker, this one too; return how many hear it (0 without Redis)."""
        self.round_trips += 1
        try:
            async with asyncio.timeout(_TELL_SECONDS), self._gate:
                return int(await self._redis.publish(_SESSIONS, to_bytes(word)))
        except (TimeoutError, RedisError, OSError):
            return 0

    async def listen(self, hint: Callable[[], None], on_broadcast: Callable[[Word], None] = lambda _: None) -> None:
        """Call `hint` whenever somebody published, or may have, and `on_broadcast` with each word of a worker.

        Runs until it is cancelled.
        """
        failures = 0
        while True:
            try:
                await self._listen(hint, on_broadcast)
            except (TimeoutError, RedisError, OSError) as error:
                if self.connected or not failures:
                    log.warning("Redis lost, polling meanwhile: %s", type(error).__name__)
            failures = 0 if self.connected else failures + 1
            self.connected = False
            await asyncio.sleep(_PAUSE_SECONDS[min(failures, len(_PAUSE_SECONDS) - 1)])

    async def _listen(self, hint: Callable[[], None], on_broadcast: Callable[[Word], None]) -> None:
        pubsub = self._redis.pubsub()
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                await pubsub.subscribe(_CHANNEL, _SESSIONS)
            self._leaving.clear()
            pinging = asyncio.create_task(self._ping(pubsub))
            leaving = asyncio.create_task(self._leaving.wait())
            reading = asyncio.create_task(self._read(pubsub, hint, on_broadcast))
            try:
                await asyncio.wait((reading, leaving), return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            finally:
                await end((pinging, leaving, reading))
        finally:
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it bare
            except (TimeoutError, RedisError, OSError):
                pass  # the connection is gone already

    async def _ping(self, pubsub: redis.client.PubSub) -> None:
        """Make the server say something every second, so that silence means that it is gone."""
        try:
            while True:
                await asyncio.sleep(_PING_SECONDS)
                async with asyncio.timeout(_SILENCE_SECONDS):
                    await pubsub.ping()
        except (TimeoutError, RedisError, OSError):
            pass  # the reader hears nothing any more, and says so

    async def _read(
        self, pubsub: redis.client.PubSub, hint: Callable[[], None], on_broadcast: Callable[[Word], None]
    ) -> None:
        while True:
            async with asyncio.timeout(_SILENCE_SECONDS):
                message = await pubsub.get_message(timeout=None)
            if message is None or message["type"] not in ("message", "subscribe"):
                continue
            self.connected = True
            self._subscribed.set()
            if message["type"] == "message" and message["channel"] == _SESSIONS.encode():
                try:
                    on_broadcast(from_bytes(message["data"]))
                except Exception:  # of another version, say: the listener goes on
                    log.exception("what another worker said can't be taken in")
            elif message["data"] != self._own:
                hint()
