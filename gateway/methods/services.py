"""The parts that a request is answered with, as one value: what handlers may use."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.access.audit import Audit
from gateway.access.authenticator import Authenticator
from gateway.access.key_table import KeyTable
from gateway.access.latest_calls import LatestCalls
from gateway.access.limits import Admission
from gateway.access.rates import Rates
from gateway.access.references import References
from gateway.methods.arguments import ArgumentChecker
from gateway.methods.looks import Looks
from gateway.methods.result_cache import ResultCache
from gateway.methods.tool_indexes import ToolIndexes
from gateway.model.cursors import Cursors
from gateway.net.dialer import Vetting
from gateway.observability.call_log import CallLog
from gateway.observability.metrics import Metrics
from gateway.registry.discovery import Discovery
from gateway.registry.documents import Documents
from gateway.registry.servers import ServerTable
from gateway.registry.sync import Sync
from gateway.registry.toolsets import ToolsetTable
from gateway.sessions.page_sessions import PageSessions
from gateway.sessions.sessions import Sessions
from gateway.settings import Settings
from gateway.stores.event_log import EventLog
from gateway.stores.figures import Figures
from gateway.stores.hints import Hints
from gateway.stores.inbox import Inbox
from gateway.stores.postgres import Postgres
from gateway.stores.redis import Redis
from gateway.stores.spills import Spills
from gateway.upstream.pool import Pool


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts that requests are answered with."""

    settings: Settings
    postgres: Postgres
    redis: Redis
    hints: Hints
    servers: ServerTable
    documents: Documents
    toolsets: ToolsetTable
    sync: Sync
    discovery: Discovery
    pool: Pool
    vetting: Vetting
    arguments: ArgumentChecker
    looks: Looks
    tool_indexes: ToolIndexes
    cursors: Cursors
    identity: str
    """What this gateway calls itself in `Via`, so that it knows a request that comes back to it."""
    sessions: Sessions
    page_sessions: PageSessions
    figures: Figures
    event_log: EventLog
    inbox: Inbox
    authenticator: Authenticator
    keys: KeyTable
    rates: Rates
    spills: Spills
    result_cache: ResultCache
    references: References
    audit: Audit
    latest_calls: LatestCalls
    admission: Admission
    metrics: Metrics
    call_log: CallLog
    draining: asyncio.Event
    worker: str
