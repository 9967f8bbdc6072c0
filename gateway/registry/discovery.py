"""Asks servers what they offer, when they are due, and stores the answer for every worker.

Each server has a time at which it is due (`next_refresh`) and a number (`claim`). States: *due* (its time has come),
*claimed* (one worker asks it; its time is when the claim runs out, so that a worker that dies leaves it to the next),
*waiting* (asked; its time is a minute ahead, or after a failure a pause that doubles up to GATEWAY_RETRY_SECONDS).

Who may write: claiming counts the number up, under `FOR UPDATE SKIP LOCKED`, so that of all workers one gets a due
server. Recording what was found works only with the number of the latest claim: a worker that was slower than its
claim, or asked a specification that was changed meanwhile, writes nothing. A server that says that its lists changed
while it is being asked is marked (`due_again`), and is due again right after. Nothing is asked inside a transaction.

What is recorded counts the registry's revision up only if it is news: the same offers, or the same reason but for its
times and process ids, wake no worker. Without Redis none of this changes; the other workers see it when they poll.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from gateway.errors import GatewayError, StoreUnavailable, UpstreamProtocolError
from gateway.model.flags import Flag, flags
from gateway.model.hidden_text import visible
from gateway.model.kinds import KINDS
from gateway.model.server import NO_OFFERS, OPENAPI, STDIO, Offers, Server, ServerSpec
from gateway.net.dialer import Vetting
from gateway.protocol.messages import Failure, Request
from gateway.registry.documents import Documents
from gateway.registry.servers import Claim, NameRules, ServerTable
from gateway.registry.sync import Sync
from gateway.tasks import end
from gateway.upstream.link import Probe
from gateway.upstream.pool import Pool

_DISCOVERY_SECONDS = 20.0
_PROGRAM_SECONDS = 40.0  # a program may be installed at its first start
CLAIM_SECONDS = _PROGRAM_SECONDS + 10
"""How long a claim holds: longer than any server is waited for."""
_LOOK_SECONDS = 1.0
_FIRST_PAUSE = 0.5
_LEADS_BACK_SECONDS = 3600.0
_STEP_SECONDS = 0.002
_FLAGS_LOGGED = 10
_MAX_ITEMS = 10_000
_MAX_BYTES = 16 << 20
_MAX_PAGES = 2_000

log = logging.getLogger("gateway.discovery")


class Discovery:
    """The loop that claims due servers, and the way to ask for one at once."""

    def __init__(
        self,
        servers: ServerTable,
        sync: Sync,
        pool: Pool,
        vetting: Vetting,
        documents: Documents,
        rules: NameRules,
        *,
        every_seconds: float,
        retry_seconds: float,
    ) -> None:
        self._servers = servers
        self._sync = sync
        self._pool = pool
        self._vetting = vetting
        self._documents = documents
        self._rules = rules
        self._every_seconds = every_seconds
        self._retry_seconds = retry_seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._due: set[str] = set()
        self._passed_on: dict[str, float] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Look for due servers until cancelled; then the talks under way are cancelled too."""
        self._due |= set(self._doubtful())
        try:
            while True:
                try:
                    await self._make_due()
                    for claim in await self._servers.claim_due(CLAIM_SECONDS):
                        self._start(claim)
                except StoreUnavailable:
                    pass  # those that are due stay due
                self._wake.clear()
                try:
                    async with asyncio.timeout(min(_LOOK_SECONDS, self._every_seconds / 2)):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            await end(self._tasks)

    def changed(self, server: str, _: str = "") -> None:
        """Ask for a server soon: it said that its lists changed, or a call found it gone."""
        self._due.add(server)
        if server not in self._passed_on:
            self._wake.set()

    async def discover(self, server: str | Claim, wait_seconds: float) -> bool:
        """Ask a server at once; come back when it answered, or after `wait_seconds` while it goes on (False).

        Raises UnknownServer or StoreUnavailable.
        """
        claim = await self._servers.claim(server, CLAIM_SECONDS) if isinstance(server, str) else server
        task = self._start(claim)
        await asyncio.wait({task}, timeout=wait_seconds)
        return task.done()

    async def _make_due(self) -> None:
        """Pass on what upstreams said, once a second per server at most."""
        now = asyncio.get_running_loop().time()
        self._passed_on = {name: at for name, at in self._passed_on.items() if now - at < _LOOK_SECONDS}
        if due := self._due - self._passed_on.keys():
            await self._servers.make_due(*due)
            self._passed_on |= dict.fromkeys(due, now)
            self._due -= due

    def _doubtful(self) -> Iterator[str]:
        """The servers whose stored state may be that of other settings: a worker that starts has them asked at once."""
        for server in self._sync.catalogue.servers.values():
            spec = server.spec
            if spec.enabled and (
                server.state == "unreachable" or spec.transport_type == STDIO or not self._vetting.may_reach(spec.url)
            ):
                yield server.name

    def _start(self, claim: Claim) -> asyncio.Task[None]:
        task = asyncio.create_task(self._discover(claim))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _discover(self, claim: Claim) -> None:
        seconds = _PROGRAM_SECONDS if claim.spec.transport_type in (STDIO, OPENAPI) else _DISCOVERY_SECONDS
        try:
            try:
                async with asyncio.timeout(seconds):
                    offers = await self._ask(claim.spec)
            except TimeoutError:
                await self._failed(claim, f"It did not tell what it offers within {seconds:g} s.")
            except GatewayError as error:
                await self._failed(
                    claim, _reason(error, claim.spec), leads_back=error.facts.get("upstream_status") == 508
                )
            except Exception as error:
                log.exception("asking server %s failed", claim.spec.name)
                await self._failed(claim, f"The gateway could not take its answer ({type(error).__name__}).")
            else:
                await self._record(claim, offers)
        except StoreUnavailable:
            log.warning("what server %s offers could not be stored; its claim runs out", claim.spec.name)
        except Exception:
            log.exception("discovery of server %s failed", claim.spec.name)

    async def _ask(self, spec: ServerSpec) -> Offers:
        """What a server offers: what it says itself, or its document of it. Raises UpstreamError."""
        if spec.transport_type != OPENAPI:
            return await ask(self._pool, spec)
        known = self._sync.catalogue.servers.get(spec.name)
        return await self._documents.offers(spec, NO_OFFERS if known is None else known.offers)

    async def _record(self, claim: Claim, offers: Offers) -> None:
        """Store what a server offers; what can't be stored is as good as no answer. Raises StoreUnavailable."""
        pause = self._every_seconds * random.uniform(0.9, 1.1)  # noqa: S311
        name = claim.spec.name
        known = self._sync.catalogue.servers.get(name)

        async def look(offers: Offers) -> Sequence[Flag]:
            return await self._look(name, offers)

        try:
            is_news = await self._servers.record_offers(claim, offers, self._rules, pause, look)
        except StoreUnavailable:
            raise
        except Exception as error:
            log.exception("what server %s offers can't be stored", name)
            await self._failed(claim, f"The gateway can't store what it offers ({type(error).__name__}).")
            return
        if is_news:
            count = len(offers.tools)
            log.info("server %s offers %d tool%s", name, count, "" if count == 1 else "s")
            await self._sync.announce()
            _warn(known, self._sync.catalogue.servers.get(name))

    async def _look(self, name: str, offers: Offers) -> Sequence[Flag]:
        """What is suspicious in a server's offers, found a few milliseconds at a time."""
        others = [server for server in self._sync.catalogue.servers.values() if server.name != name]
        found: list[Flag] = []
        clock = asyncio.get_running_loop().time
        began = clock()
        for _ in flags(offers, others, found):
            if clock() - began > _STEP_SECONDS:
                await asyncio.sleep(0)
                began = clock()
        return found

    async def _failed(self, claim: Claim, reason: str, *, leads_back: bool = False) -> None:
        """Store why a server could not be asked. One that leads back here will not change by itself: it can wait."""
        pause = min(self._retry_seconds, _FIRST_PAUSE * 2 ** min(claim.failures, 16))
        if leads_back:
            pause = max(_LEADS_BACK_SECONDS, self._every_seconds)
        reason = reason.replace("\0", "").strip()[:1000]
        if await self._servers.record_failure(claim, reason, self._rules, pause):
            log.warning("server %s is unreachable: %s", claim.spec.name, reason)
            await self._sync.announce()


def _warn(before: Server | None, now: Server | None) -> None:
    """Log what is new of what looks suspicious, and of tools that are not as they were approved."""
    if now is None:
        return
    known = () if before is None else before.flags
    for flag in [flag for flag in now.flags if flag not in known][:_FLAGS_LOGGED]:
        log.warning("server %s: %s %s", now.name, flag["place"], flag["detail"])
    known_changes = {} if before is None else before.judged.changes
    if now.judged.changes and now.judged.changes != known_changes:
        listed = ", ".join(f"{visible(name[:100])} ({what})" for name, what in list(now.judged.changes.items())[:10])
        log.warning("server %s: %d tools are not as approved: %s", now.name, len(now.judged.changes), listed)


def _reason(error: GatewayError, spec: ServerSpec) -> str:
    """Why a server could not be asked, with its address where it was not reached. Administrators read it."""
    where = urlsplit(spec.url)
    if not where.hostname or not error.detail.startswith(f"Server {spec.name!r} can't be reached"):
        return error.detail
    return f"{error.detail.rstrip('.')} ({where.netloc})."


async def ask(pool: Pool, spec: ServerSpec) -> Offers:
    """Shake hands with a server and read all its lists, over a link of its own. Raises UpstreamError."""
    async with pool[spec].probe() as probe:
        capabilities = probe.handshake.capabilities
        lists: dict[str, Any] = {}
        for kind in KINDS.values():
            if kind.capability in capabilities:
                lists[kind.name] = await _items(probe, spec.name, kind.method, kind.key, kind.identity)
        offers = Offers(
            version=probe.handshake.version,
            capabilities=capabilities,
            server_info=probe.handshake.server_info,
            instructions=probe.handshake.instructions,
            **lists,
        )
    try:
        offers.to_bytes()
    except TypeError:  # orjson writes 254 levels, and reads more
        raise UpstreamProtocolError(
            spec.name, f"Server {spec.name!r} lists something that is nested too deeply."
        ) from None
    return offers


async def _items(probe: Probe, server: str, method: str, key: str, identity: str) -> tuple[Mapping[str, Any], ...]:
    """All pages of one list; an item without its identity is left out."""
    items: list[Mapping[str, Any]] = []
    cursor: str | None = None
    size = 0
    for page in range(_MAX_PAGES):
        answer = await probe.request(Request(page, method, {} if cursor is None else {"cursor": cursor}))
        if isinstance(answer, Failure):
            if answer.code == -32601:
                return ()
            raise UpstreamProtocolError(server, f"Server {server!r} refused {method}: {answer.message[:200]}.")
        result = answer.result
        if not isinstance(result, dict) or not isinstance(found := result.get(key), list):
            raise UpstreamProtocolError(server, f"Server {server!r} answered {method} without {key!r}.")
        items += [item for item in found if _usable(item, identity, method)]
        size += len(answer.raw or b"") or 100 * len(found)
        if len(items) > _MAX_ITEMS or size > _MAX_BYTES:
            raise UpstreamProtocolError(
                server,
                f"Server {server!r} lists too much with {method}: more than {_MAX_ITEMS} items "
                f"or {_MAX_BYTES >> 20} MiB.",
            )
        after = result.get("nextCursor")
        if not isinstance(after, str):
            return tuple(items)
        if after == cursor:
            break
        cursor = after
    raise UpstreamProtocolError(
        server, f"Server {server!r} does not come to an end with {method} (after {len(items)} items)."
    )


def _usable(item: Any, identity: str, method: str) -> bool:
    """Tell whether clients could take this item: one bad item would cost them the whole list."""
    if not isinstance(item, dict) or not isinstance(name := item.get(identity), str):
        return False
    if not name or len(name) > 4096 or "\0" in name:
        return False
    return method != "tools/list" or isinstance(item.get("inputSchema"), dict)
