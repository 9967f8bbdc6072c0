"""The parts that a request is answered with, as one value: what handlers may use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.access.authenticator import Authenticator
from gateway.access.limits import Admission
from gateway.methods.arguments import ArgumentChecker
from gateway.model.session_ids import Sessions
from gateway.net.dialer import Vetting
from gateway.observability.metrics import Telemetry
from gateway.registry.discovery import Refresh
from gateway.registry.servers import ServerTable
from gateway.registry.sync import Sync
from gateway.sessions.ended import EndedSessions
from gateway.sessions.sessions import Conversations
from gateway.settings import Settings
from gateway.stores.event_log import EventLog
from gateway.stores.hints import Bus
from gateway.stores.inbox import Inbox
from gateway.stores.postgres import Postgres
from gateway.stores.redis import Redis
from gateway.upstream.pool import Pool


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts that requests are answered with."""

    settings: Settings
    postgres: Postgres
    servers: ServerTable
    ended_sessions: EndedSessions
    bus: Bus
    sync: Sync
    pool: Pool
    refresh: Refresh
    vetting: Vetting
    arguments: ArgumentChecker
    identity: str
    sessions: Sessions
    conversations: Conversations
    redis: Redis
    event_log: EventLog
    inbox: Inbox
    authenticator: Authenticator
    telemetry: Telemetry
    admission: Admission
    draining: asyncio.Event
    worker: str
    clock: Callable[[], float] = time.time
