"""The wiring: everything that one worker's gateway holds, opened and closed in one place."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from gateway import version
from gateway.access.audit import Audit
from gateway.access.authenticator import Authenticator
from gateway.access.key_table import KeyTable
from gateway.access.latest_calls import LatestCalls
from gateway.access.limits import Admission, KeyEnd
from gateway.access.rates import Rates
from gateway.access.references import References
from gateway.errors import InvalidParams, SettingsError
from gateway.machine.memory import memory_of_process
from gateway.methods.arguments import ArgumentChecker
from gateway.methods.looks import Looks
from gateway.methods.result_cache import ResultCache
from gateway.methods.services import Gateway
from gateway.methods.table import NAMES
from gateway.methods.tool_indexes import MakeIndex, ToolIndexes
from gateway.model.address_policy import Allowed
from gateway.model.catalogue import Catalogue
from gateway.model.cursors import Cursors
from gateway.model.keyring import Keyring
from gateway.model.limits import read_limits
from gateway.model.principals import Principal
from gateway.model.question_ids import QuestionIds
from gateway.model.semantic_index import SemanticIndex
from gateway.model.server import NO_OFFERS, Offers
from gateway.model.session_ids import SessionIds
from gateway.model.tool_index import ToolIndex
from gateway.model.word_vectors import WordVectors
from gateway.net.dialer import Dialer, Resolve, Vetting
from gateway.observability.call_log import CallLog
from gateway.observability.metrics import Metrics
from gateway.observability.ring import Ring
from gateway.registry.discovery import Discovery
from gateway.registry.documents import Documents
from gateway.registry.servers import NameRules, ServerTable
from gateway.registry.sync import Sync
from gateway.registry.toolsets import NameKeeper, ToolsetTable
from gateway.sessions.ended import EndedSessions
from gateway.sessions.links import Links
from gateway.sessions.page_sessions import PageSessions
from gateway.sessions.record import Records
from gateway.sessions.sessions import Sessions
from gateway.settings import Settings
from gateway.stores.event_log import EventLog, Retention
from gateway.stores.figures import Figures
from gateway.stores.hints import Hints
from gateway.stores.inbox import Inbox
from gateway.stores.postgres import Postgres
from gateway.stores.redis import Redis
from gateway.stores.spills import Spills
from gateway.stores.streams import Streams
from gateway.tasks import end, keep
from gateway.upstream.factory import Connect, over_http
from gateway.upstream.link import CallLimits
from gateway.upstream.pool import Pool
from gateway.upstream.relayed import Relay
from gateway.upstream.wire import WireLimits

_CONTACT_SECONDS = 1.0
_COUNT_TASKS_SECONDS = 10.0


@asynccontextmanager
async def open_gateway(
    settings: Settings,
    draining: asyncio.Event,
    *,
    connect: Connect | None = None,
    resolve: Resolve | None = None,
    worker: str | None = None,
) -> AsyncIterator[Gateway]:
    """Open a gateway: connect, migrate, load the catalogue, start its loops; close it all at the end.

    `connect` makes upstreams (over HTTP unless told otherwise), `resolve` finds the addresses of a name.
    Raises SettingsError or StoreUnavailable.
    """
    if settings.master_key is None:
        raise SettingsError("GATEWAY_MASTER_KEY: not set; it is the key that clients send.")
    if settings.database_url is None:
        raise SettingsError("DATABASE_URL: not set; `mcp-gateway serve` runs a database of its own without it.")
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL: not set; `mcp-gateway serve` runs a Redis of its own without it.")
    try:
        default_limits = read_limits(settings.default_limits, "GATEWAY_DEFAULT_LIMITS")
    except InvalidParams as error:
        raise SettingsError(f"GATEWAY_DEFAULT_LIMITS: {error.detail}") from None
    worker = worker or str(os.getpid())
    ring = Ring()
    metrics = Metrics(settings.replica_name, by_tool=settings.metrics_tools, ring=ring)
    postgres = Postgres(settings.database_url)
    hints = Hints(settings.redis_url)
    redis: Redis | None = None
    try:
        await postgres.open()
        keyring = await _keyring(settings, postgres)
        identity = await postgres.identity(keyring.identity)  # it stays when the secret is another one
        servers = ServerTable(postgres, keyring, runs_programs=settings.allow_stdio)
        empty = Catalogue(strict=settings.name_chars == "strict")
        sync = Sync(servers, hints, settings.poll_seconds, time.monotonic, empty)
        toolsets = ToolsetTable(postgres)

        def registry_changed() -> None:
            sync.hint_others()
            sync.hint()

        name_keeper = NameKeeper(toolsets, registry_changed)

        redis = Redis(settings.redis_url, identity)
        redis.on_leave(hints.leave)
        streams = Streams(redis)
        own_name = f"{worker}-{os.urandom(6).hex()}"
        retention = Retention(settings.resume_bytes, settings.resume_seconds, settings.resume_total)
        event_log = EventLog(redis, streams, own_name, retention)
        inbox = Inbox(redis, streams, settings.resume_seconds)

        bridge = settings.bridge if settings.allow_stdio else None
        bridge_name = None if bridge is None else f"bridge-{_digest(f'{platform.node()} {bridge}')}"
        relay = Relay(redis, inbox, own_name, hints.broadcast, bridge_name)
        everything = settings.allow_private_upstreams
        vetting = Vetting(Allowed.read(settings.allowed_upstreams, everything=everything), resolve)
        dialer = Dialer(vetting, connect_seconds=settings.connect_seconds, via=identity)
        secrets = References(os.environ, settings.secrets_dir)
        wire_limits = WireLimits(2 * settings.connect_seconds, settings.max_result)
        documents = Documents(servers, dialer, secrets.resolved)

        def offers_of(server: str) -> Offers:
            known = sync.catalogue.servers.get(server)
            return NO_OFFERS if known is None else known.offers

        pool = Pool(
            connect or over_http(dialer, wire_limits, relay, bridge, secrets.resolved, offers_of),
            CallLimits(
                settings.call_seconds,
                settings.call_cap_seconds,
                settings.max_server_calls,
                settings.breaker_failures,
                settings.breaker_seconds,
            ),
            lambda server, method: lists_changed(server, method),
            metrics.breaker,
            lambda server: call_failed(server),
        )
        discovery = Discovery(
            servers,
            sync,
            pool,
            vetting,
            documents,
            NameRules(settings.separator, settings.name_limit),
            every_seconds=settings.refresh_seconds,
            retry_seconds=settings.retry_seconds,
        )
        links = Links(pool, sync)
        keys = KeyTable(postgres)
        audit = Audit(
            postgres,
            keyring,
            settings.replica_name,
            which=settings.audit,
            days=settings.audit_days,
            arguments=settings.audit_arguments,
            dropped=metrics.audit_dropped.inc,
        )
        admission = Admission(settings.max_in_flight, settings.max_streams)
        metrics.count_in_flight = lambda: admission.in_flight

        def key_changed(id: str, principal: Principal | None, end: KeyEnd | None) -> None:
            if end is not None:
                admission.end(id, end)
            sessions.principal_changed(id, principal)

        authenticator = Authenticator(
            settings.master_keys,
            settings.metrics_key,
            table=keys,
            look=sync.look_for_caller,
            default_limits=default_limits,
            changed=key_changed,
        )
        rates = Rates(redis, own_name)

        def drop(key: str) -> None:
            sessions.drop(key)
            page_sessions.drop(key)

        ended = EndedSessions(postgres, lambda: [*sessions.keys(), *page_sessions.keys()], drop)
        page_sessions = PageSessions(keyring, authenticator, ended)
        sessions = Sessions(
            ids=SessionIds(keyring, settings.session_seconds),
            records=Records(redis),
            redis=redis,
            hints=hints,
            ended=ended,
            sync=sync,
            pool=pool,
            links=links,
            question_ids=QuestionIds(keyring),
            idle_seconds=settings.session_idle_seconds,
            max_sessions=settings.max_sessions,
            dropped=metrics.dropped.inc,
            errand_stopped=relay.stopped,
        )

        figures = Figures(
            redis,
            own_name,
            ring,
            lambda: {
                "replica": settings.replica_name,
                "worker": worker,
                "revision": sync.catalogue.revision,
                "lag": None if sync.lag is None else round(sync.lag, 2),
                "memory": memory_of_process(),
                "sessions": len(sessions),
                "streams": admission.streams,
                "in_flight": admission.in_flight,
                "degraded": sync.degraded,
                "version": version.VERSION,
            },
        )

        def lists_changed(server: str, method: str) -> None:
            discovery.changed(server)
            sessions.server_changed(server, method)

        def call_failed(server: str) -> None:
            """A call did not reach a server that the registry calls `ready`: have it asked at once."""
            known = sync.catalogue.servers.get(server)
            if known is not None and known.state == "ready":
                discovery.changed(server)

        arguments = ArgumentChecker()
        call_log = CallLog(metrics, NAMES, settings.call_log)
        sync.follow(authenticator.catch_up)
        sync.follow(ended.catch_up)
        sync.on_swap(ended.swapped)
        pool.on_program_gone(sessions.end_programs)
        sync.on_swap(pool.reconcile)
        sync.on_swap(name_keeper.swapped)
        sync.on_swap(sessions.reconcile)
        sync.on_swap(lambda catalogue: arguments.forget(frozenset(catalogue.servers)))
        sync.on_swap(lambda catalogue: metrics.revision.set(catalogue.revision))
        sync.on_swap(lambda catalogue: metrics.servers.set(len(catalogue.servers)))
        sync.on_swap(lambda catalogue: metrics.changed_tools.set(_changed_tools(catalogue)))
        sync.on_read(lambda: _show(metrics, postgres, hints, sessions))
        await authenticator.load()
        await sync.catch_up()
        loops = [
            asyncio.create_task(keep("hints", lambda: hints.listen(sync.hint, sessions.on_broadcast))),
            asyncio.create_task(keep("sync", sync.run)),
            asyncio.create_task(keep("discovery", discovery.run)),
            asyncio.create_task(keep("names of toolsets", name_keeper.run)),
            asyncio.create_task(keep("sessions", sessions.run)),
            asyncio.create_task(keep("keys", authenticator.run)),
            asyncio.create_task(keep("limits", rates.run)),
            asyncio.create_task(keep("audit", audit.run)),
            asyncio.create_task(keep("ended sessions", ended.run)),
            asyncio.create_task(keep("figures", figures.run)),
            asyncio.create_task(keep("heartbeat", lambda: redis.keep_beating(*relay.holders))),
            asyncio.create_task(keep("event log", event_log.write)),
            asyncio.create_task(keep("streams", streams.run)),
            asyncio.create_task(keep("call log", call_log.run)),
            asyncio.create_task(keep("count of tasks", lambda: _count_tasks(metrics))),
            asyncio.create_task(_close_on_drain(draining, sessions)),
            asyncio.create_task(keep("relay", lambda: relay.serve(links.upstream_for))),
        ]
        try:
            await hints.first_contact(_CONTACT_SECONDS)
            yield Gateway(
                settings=settings,
                postgres=postgres,
                redis=redis,
                hints=hints,
                servers=servers,
                documents=documents,
                toolsets=toolsets,
                sync=sync,
                discovery=discovery,
                pool=pool,
                vetting=vetting,
                arguments=arguments,
                looks=Looks(),
                tool_indexes=ToolIndexes(_make_index(settings)),
                cursors=Cursors(keyring),
                identity=identity,
                sessions=sessions,
                page_sessions=page_sessions,
                figures=figures,
                event_log=event_log,
                inbox=inbox,
                authenticator=authenticator,
                keys=keys,
                rates=rates,
                references=secrets,
                result_cache=ResultCache(),
                spills=Spills(redis, settings.spill_seconds, settings.spill_bytes),
                audit=audit,
                latest_calls=LatestCalls(audit),
                admission=admission,
                metrics=metrics,
                call_log=call_log,
                draining=draining,
                worker=worker,
            )
        finally:
            await end(loops)
            await sync.close()
            await sessions.close()
            await pool.close()
            await audit.close()
    finally:
        if redis is not None:
            await redis.close()
        await hints.close()
        await postgres.close()


async def _keyring(settings: Settings, postgres: Postgres) -> Keyring:
    """The secrets that are configured, and after them the stored one: what it sealed before they were can be read."""
    configured = [secret.encode() for secret in settings.secret]
    return Keyring([*configured, *await postgres.stored_secrets()] if configured else [await postgres.own_secret()])


async def _close_on_drain(draining: asyncio.Event, sessions: Sessions) -> None:
    await draining.wait()
    sessions.close_streams()


def _changed_tools(catalogue: Catalogue) -> int:
    """Of how many tools something is to be approved."""
    return sum(len(server.to_approve) for server in catalogue.servers.values() if server.is_enabled)


def _show(metrics: Metrics, postgres: Postgres, hints: Hints, sessions: Sessions) -> None:
    """The figures that follow the registry's reader, every few seconds."""
    metrics.read_at.set_to_current_time()
    metrics.connections.set(postgres.connections)
    metrics.redis.set(int(hints.connected))
    metrics.known_sessions.set(len(sessions))


async def _count_tasks(metrics: Metrics) -> None:
    """Count the tasks now and then: to count 10,000 of them takes milliseconds."""
    while True:
        metrics.tasks.set(len(asyncio.all_tasks()))
        await asyncio.sleep(_COUNT_TASKS_SECONDS)


def _make_index(settings: Settings) -> MakeIndex:
    """What tools are searched in. Raises SettingsError where it needs what is not installed."""
    return partial(SemanticIndex, vectors=WordVectors()) if settings.tool_ranking == "semantic" else ToolIndex


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
