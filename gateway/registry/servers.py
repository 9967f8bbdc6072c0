"""The registry's tables in Postgres: the truth of which servers there are and what they offer.

Every change bumps the revision in the same transaction, under its row's lock: revisions become visible in their order,
so that a worker reads all that changed since its own. Knows SQL and seals; nothing of upstreams or protocols.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import orjson

from gateway.access.audit import Log
from gateway.errors import InvalidParams, ServerSealed, UnknownServer
from gateway.model import names
from gateway.model.api_document import Document
from gateway.model.keyring import Keyring, SealBroken
from gateway.model.limits import Limits, read_limits
from gateway.model.server import NO_OFFERS, NO_PROGRAMS, STDIO, Offers, Server, ServerSpec
from gateway.model.tool_lock import LOCKS, Approved
from gateway.model.toolsets import Toolset
from gateway.registry.revisions import bump, revision_of
from gateway.registry.stored_approvals import after_change, after_look, columns, for_audit, read_approved
from gateway.registry.stored_names import NotAllowed, assign_names
from gateway.registry.toolsets import changed_toolsets, distrust
from gateway.stores.postgres import Connection, Postgres

_SEAL = "server secrets"
_NOT_RUN = NO_PROGRAMS.removeprefix("It ")
_SEALED_AWAY = "its headers were stored with another GATEWAY_SECRET; add that secret, or register it again"
_SPEC_FIELDS = frozenset(each.name for each in fields(ServerSpec) if each.init)
_CLAIM = (
    "UPDATE servers SET claim = claim + 1, claimed = true, due_again = false, "
    "next_refresh = now() + make_interval(secs => %s)"
)
_NEXT = (
    "claimed = false, due_again = false, "
    "next_refresh = now() + CASE WHEN due_again THEN interval '1 second' ELSE make_interval(secs => %s) END"
)
_CHANGE_SECONDS = 10.0  # that a change of lists pays for
_ITEMS_PER_CHANGE = 1_000  # items that make a change pay for as much again
_FREE_AT = "changes_paid_until - interval '50 seconds'"
_NAMED = b"with strict names"  # changes with how names are given, so that all are given anew
_UNSTEADY = re.compile(r"\d{4,}|\d+(\.\d+)? ?(ms|s|seconds)\b|0x[0-9a-f]+|\d{1,2}:\d{2}(:\d{2})?")

TOO_OFTEN = (
    "Its lists change more often than they are taken over: five times at once, then every 10 s, and that again for "
    "every thousand items. The newest will be taken over."
)

log = logging.getLogger("gateway.registry")

Change = Callable[[ServerSpec | None], ServerSpec]
Read = Callable[[Connection], Awaitable[None]]
Look = Callable[[Offers], Awaitable[Sequence[Mapping[str, str]]]]
"""Finds what looks suspicious in a server's offers."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a worker needs to catch up: servers and toolsets changed since, and the names of all."""

    revision: int
    servers: tuple[Server, ...]
    names: frozenset[str]
    toolsets: tuple[Toolset, ...] = ()
    slugs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Claim:
    """A server whose lists this worker is to ask for; no other worker does until the claim runs out."""

    spec: ServerSpec
    number: int
    failures: int
    is_asked_for: bool = True
    """Whether a caller asked for it, not the clock or the server itself."""


@dataclass(frozen=True, slots=True)
class NameRules:
    """How public names are built in this registry."""

    separator: str
    limit: int

    def of(self, spec: ServerSpec) -> names.Naming:
        prefix = spec.name if spec.prefix is None else spec.prefix
        return names.Naming(spec.name, prefix, self.separator, self.limit, _renamed(spec))


class ServerTable:
    """The registered servers, their names, and the revision that counts their changes."""

    def __init__(self, postgres: Postgres, keyring: Keyring, *, runs_programs: bool = True) -> None:
        """Without `runs_programs` servers of transport_type stdio are shown as what they are here: unreachable."""
        self._postgres = postgres
        self._keyring = keyring
        self._runs_programs = runs_programs

    # --- reading --------------------------------------------------------------------------------------------------

    async def revision(self) -> int:
        """The registry's revision now."""
        async with self._postgres.transaction() as connection:
            return await revision_of(connection)

    async def changes_since(self, revision: int, *also: Read) -> Changes | None:
        """All that changed after `revision`, or None if nothing did; `also` read in the same snapshot."""
        async with self._postgres.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for read in also:
                await read(connection)
            cursor = await connection.execute("SELECT revision, pg_is_in_recovery() AS is_standby FROM registry")
            row = await cursor.fetchone()
            current, is_standby = (int(row["revision"]), row["is_standby"]) if row else (0, False)
            changes = None if current == revision else await self._changes(connection, revision, current)
        await self._postgres.saw_standby(is_standby)
        return changes

    async def _changes(self, connection: Connection, revision: int, current: int) -> Changes:
        """What changed between two revisions, in the snapshot of a transaction."""
        if current < revision:  # another database stands behind the same address: begin anew
            revision = -1
        cursor = await connection.execute("SELECT * FROM servers WHERE revision > %s", (revision,))
        servers = tuple([server async for row in cursor if (server := self._readable(row)) is not None])
        rows = await (await connection.execute("SELECT name FROM servers")).fetchall()
        toolsets, slugs = await changed_toolsets(connection, revision)
        return Changes(current, servers, frozenset(row["name"] for row in rows), toolsets, slugs)

    async def document(self, name: str) -> bytes | None:
        """The OpenAPI document that was sent with a registration."""
        async with self._postgres.transaction() as connection:
            cursor = await connection.execute("SELECT data FROM documents WHERE server = %s", (name,))
            row = await cursor.fetchone()
        return None if row is None else bytes(row["data"])

    # --- writing --------------------------------------------------------------------------------------------------

    async def put(self, name: str, change: Change, claim_seconds: float, log: Log | None = None) -> Claim | None:
        """Store what `change` makes of the stored specification; None if that is the same.

        `change` gets None where there is none, and may refuse by raising. The server is claimed by the caller. `log`
        writes the audit's row.
        """
        async with self._postgres.transaction() as connection:
            revision = await bump(connection)
            cursor = await connection.execute("SELECT * FROM servers WHERE name = %s FOR UPDATE", (name,))
            row = await cursor.fetchone()
            stored = None if row is None else self._spec(row)
            if stored is not None and stored.sealed_away:
                raise ServerSealed(name)
            spec = change(stored)
            if spec == stored:
                await connection.rollback()
                return None
            values = self._row(spec, revision, row) | {"claim": claim_seconds}
            if stored is None or row is None:
                await _insert(connection, values)
            else:
                await _update(connection, stored, spec, values)
                await _forget_names(connection, stored, spec)
                if (stored.lock is None) != (spec.lock is None):
                    is_another = stored.fingerprint != spec.fingerprint
                    approved = columns(after_change(spec.lock, row, is_another=is_another))
                    await connection.execute(
                        "UPDATE servers SET approved = %s, hints = %s WHERE name = %s", (*approved, name)
                    )
            if stored is not None and stored.fingerprint != spec.fingerprint:
                await distrust(connection, name, revision, log)
            await _keep_document(connection, spec)
            cursor = await connection.execute("SELECT claim, failures FROM servers WHERE name = %s", (name,))
            claimed = await cursor.fetchone()
            if log is not None:
                await log(connection, None if stored is None else stored.public(), spec.public())
            assert claimed is not None, "it was written a moment ago"  # noqa: S101
            return Claim(spec, claimed["claim"], claimed["failures"])

    async def remove(self, name: str, log: Log | None = None) -> None:
        """Forget a server and its names; `log` writes the audit's row. Raises UnknownServer."""
        async with self._postgres.transaction() as connection:
            revision = await bump(connection)
            cursor = await connection.execute("DELETE FROM servers WHERE name = %s RETURNING *", (name,))
            row = await cursor.fetchone()
            if row is None:
                raise UnknownServer(name)
            await distrust(connection, name, revision, log)
            if log is not None:
                await log(connection, self._spec(row).public(), None)

    async def seal_anew(self) -> tuple[int, list[str]]:
        """Seal with the newest secret what others sealed; how many servers, and which can't be opened.

        Nothing that is shown changes, so that no worker has to read anew. Raises StoreUnavailable.
        """
        async with self._postgres.transaction() as connection:
            rows = await (await connection.execute("SELECT name FROM servers ORDER BY name")).fetchall()
        count, closed = 0, []
        for name in (row["name"] for row in rows):
            async with self._postgres.transaction() as connection:
                cursor = await connection.execute("SELECT * FROM servers WHERE name = %s FOR UPDATE", (name,))
                row = await cursor.fetchone()
                if row is None or self._keyring.is_current(bytes(row["sealed"])):
                    continue
                spec = self._spec(row)
                if spec.sealed_away:
                    closed.append(name)
                    continue
                values = self._row(spec, row["revision"], row)
                await connection.execute(
                    "UPDATE servers SET spec = %(spec)s, sealed = %(sealed)s WHERE name = %(name)s", values
                )
                count += 1
        return count, closed

    async def approve(self, name: str, change: Callable[[Server], Approved], log: Log | None = None) -> None:
        """Store what `change` makes of what was approved of a server; it may refuse by raising.

        `log` writes the audit's row. Raises UnknownServer or StoreUnavailable.
        """
        async with self._postgres.transaction() as connection:
            revision = await bump(connection)
            cursor = await connection.execute("SELECT * FROM servers WHERE name = %s FOR UPDATE", (name,))
            row = await cursor.fetchone()
            if row is None:
                raise UnknownServer(name)
            server = self._server(row)
            approved = change(server)
            if columns(approved) == columns(server.approved):
                await connection.rollback()
                return
            await connection.execute(
                "UPDATE servers SET approved = %s, hints = %s, revision = %s, updated_at = now() WHERE name = %s",
                (*columns(approved), revision, name),
            )
            if log is not None:
                await log(connection, *for_audit(server.approved, approved))

    # --- discovery ------------------------------------------------------------------------------------------------

    async def claim_due(self, claim_seconds: float, limit: int = 8) -> list[Claim]:
        """Take servers that are due; they are ours until the claim runs out."""
        async with self._postgres.transaction() as connection:
            cursor = await connection.execute(
                f"{_CLAIM} WHERE name IN "
                "(SELECT name FROM servers WHERE enabled AND next_refresh <= now() "
                " ORDER BY next_refresh LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING *",
                (claim_seconds, limit),
            )
            claims = [Claim(self._spec(row), row["claim"], row["failures"], is_asked_for=False) async for row in cursor]
        return [claim for claim in claims if not claim.spec.sealed_away]

    async def claim(self, name: str, claim_seconds: float) -> Claim:
        """Take one server, due or not. Raises UnknownServer."""
        async with self._postgres.transaction() as connection:
            cursor = await connection.execute(
                f"{_CLAIM} WHERE name = %s RETURNING *",
                (claim_seconds, name),
            )
            row = await cursor.fetchone()
        if row is None:
            raise UnknownServer(name)
        claim = Claim(self._spec(row), row["claim"], row["failures"])
        if claim.spec.sealed_away:
            raise ServerSealed(name)
        return claim

    async def make_due(self, *names: str) -> None:
        """Ask that servers be looked at soon."""
        async with self._postgres.transaction() as connection:
            await connection.execute(
                "UPDATE servers SET due_again = true, "
                f"next_refresh = CASE WHEN claimed THEN next_refresh ELSE greatest(now(), {_FREE_AT}) END "
                "WHERE name = ANY(%s)",
                (list(names),),
            )

    async def record_offers(
        self, claim: Claim, offers: Offers, rules: NameRules, next_seconds: float, look: Look | None = None
    ) -> bool:
        """Store what a server offers and name it; True if the registry changed, so that others must read.

        `look` finds what is suspicious in it, if it is news.

        Does nothing when somebody claimed the server since, or changed its specification. Lists that change too often
        wait (the newest win), unless somebody asked for them. What takes its time is done before the lock that others
        need: names, some hundred at a time, then the lists themselves, which count only with their digest.
        """
        name, number = claim.spec.name, claim.number
        data = offers.to_bytes()
        digest = hashlib.sha256(data + _NAMED).hexdigest()
        async with self._postgres.transaction() as connection:
            cursor = await connection.execute(
                f"UPDATE servers SET discovered_at = now(), failures = 0, {_NEXT} "
                "WHERE name = %s AND claim = %s AND digest = %s AND state = 'ready' AND reason IS NULL "
                "AND hints IS NOT NULL RETURNING name",
                (next_seconds, name, number, digest),
            )
            if await cursor.fetchone():
                return False
            cursor = await connection.execute(
                f"SELECT digest, state, reason, extract(epoch FROM {_FREE_AT} - now())::float AS wait "
                "FROM servers WHERE name = %s AND claim = %s AND enabled",
                (name, number),
            )
            row = await cursor.fetchone()
        if row is not None and row["digest"] not in ("", digest) and row["wait"] > 0 and not claim.is_asked_for:
            return await self._hold(claim, row["wait"], is_news=(row["state"], row["reason"]) != ("ready", TOO_OFTEN))
        flags = () if look is None else await look(offers)
        try:
            names = await assign_names(self._postgres, rules.of(claim.spec), offers, lambda found: _holds(found, claim))
        except NotAllowed:
            return False
        async with self._postgres.transaction() as connection:
            cursor = await connection.execute(
                "SELECT offers, approved, hints FROM servers WHERE name = %s AND claim = %s AND enabled FOR UPDATE",
                (name, number),
            )
            before = await cursor.fetchone()
            if before is None:
                return False
            approved = columns(after_look(claim.spec.lock, before, offers))
            await connection.execute(
                "UPDATE servers SET offers = %s, names = %s, digest = '', approved = %s, hints = %s, flags = %s "
                "WHERE name = %s",
                (data, orjson.dumps(names), *approved, orjson.dumps(list(flags)), name),
            )
        cost = _CHANGE_SECONDS * (1 + sum(len(each) for each in names.values()) / _ITEMS_PER_CHANGE)
        return await self._record_news(
            "digest = %s, state = 'ready', reason = NULL, unreachable_since = NULL, discovered_at = now(), "
            "failures = 0, changes_paid_until = greatest(changes_paid_until, now()) + make_interval(secs => %s)",
            (digest, 0 if row is not None and row["digest"] == digest else cost),
            claim,
            next_seconds,
        )

    async def _hold(self, claim: Claim, seconds: float, *, is_news: bool) -> bool:
        """Let changed lists wait; True if that is news."""
        if is_news:
            change = "state = 'ready', unreachable_since = NULL, discovered_at = now(), failures = 0, reason = %s"
            return await self._record_news(change, (TOO_OFTEN,), claim, seconds)
        async with self._postgres.transaction() as connection:
            await connection.execute(
                f"UPDATE servers SET discovered_at = now(), failures = 0, {_NEXT} WHERE name = %s AND claim = %s",
                (seconds, claim.spec.name, claim.number),
            )
        return False

    async def record_failure(self, claim: Claim, reason: str, rules: NameRules, next_seconds: float) -> bool:
        """Store why a server could not be asked; True if that is news.

        What it offered last is named anew where a caller asked for it: an override may have let go of names.
        """
        is_named = claim.is_asked_for and await self._name_last_known(claim, rules)
        if claim.failures and not is_named:  # it is no news if it was not well either, for the same reason
            async with self._postgres.transaction() as connection:
                cursor = await connection.execute(
                    f"UPDATE servers SET failures = failures + 1, {_NEXT} "
                    "WHERE name = %s AND claim = %s RETURNING state, reason, enabled",
                    (next_seconds, claim.spec.name, claim.number),
                )
                row = await cursor.fetchone()
            if row is None or not row["enabled"]:
                return False
            if row["state"] == "unreachable" and steady(row["reason"] or "") == steady(reason):
                return False
        return await self._record_news(
            "state = 'unreachable', reason = %s, failures = greatest(failures, %s), "
            "unreachable_since = coalesce(unreachable_since, now())",
            (reason, claim.failures + 1),
            claim,
            next_seconds,
        )

    async def _name_last_known(self, claim: Claim, rules: NameRules) -> bool:
        """Name what a server offered last, of which something has no name; True if names were given."""
        name, number = claim.spec.name, claim.number
        async with self._postgres.transaction() as connection:
            cursor = await connection.execute(
                "SELECT offers, names FROM servers WHERE name = %s AND claim = %s AND digest = '' "
                "AND offers IS NOT NULL",
                (name, number),
            )
            row = await cursor.fetchone()
        if row is None:
            return False
        try:
            offers = Offers.from_bytes(row["offers"])
            given = await assign_names(self._postgres, rules.of(claim.spec), offers, lambda found: _holds(found, claim))
        except (ValueError, KeyError, TypeError, NotAllowed):  # a newer version's, or somebody else's by now
            return False
        if given == orjson.loads(row["names"]):
            return False
        async with self._postgres.transaction() as connection:
            await connection.execute(
                "UPDATE servers SET names = %s WHERE name = %s AND claim = %s", (orjson.dumps(given), name, number)
            )
        return True

    async def _record_news(self, change: str, values: tuple[object, ...], claim: Claim, next_seconds: float) -> bool:
        """Count a revision for a change of a server; False if the claim holds no more."""
        async with self._postgres.transaction() as connection:
            revision = await bump(connection)
            cursor = await connection.execute(
                f"UPDATE servers SET {change}, revision = %s, {_NEXT} "
                "WHERE name = %s AND claim = %s AND enabled".encode(),
                (*values, revision, next_seconds, claim.spec.name, claim.number),
            )
            if not cursor.rowcount:
                await connection.rollback()
            return bool(cursor.rowcount)

    # --- rows and values ------------------------------------------------------------------------------------------

    def _row(self, spec: ServerSpec, revision: int, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The values of a row; fields of the row `before` that only a newer version knows are kept."""
        shown, newer = spec.public(), {}
        if before is not None:
            newer = {name: value for name, value in self._hidden(before).items() if name not in _SPEC_FIELDS}
            stored = orjson.loads(before["spec"])
            shown = {name: value for name, value in stored.items() if name not in _SPEC_FIELDS} | shown
        hidden = {
            "url": spec.url,
            "spec_url": spec.spec_url,
            "headers": dict(spec.headers),
            "env": dict(spec.env),
            "args": list(spec.args),
        }
        return {
            "name": spec.name,
            "spec": orjson.dumps(shown),
            "sealed": self._keyring.seal(_SEAL, orjson.dumps(newer | hidden), spec.name),
            "revision": revision,
            "enabled": spec.enabled,
            "state": "starting" if spec.enabled else "disabled",
            "reason": None,
        }

    def _hidden(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What is sealed of a row. Raises SealBroken."""
        found: dict[str, Any] = orjson.loads(self._keyring.open(_SEAL, bytes(row["sealed"]), row["name"]))
        return found

    def _spec(self, row: Mapping[str, Any]) -> ServerSpec:
        """Read a specification; one whose secrets can't be opened comes back disabled and without them."""
        values = orjson.loads(row["spec"])
        try:
            values |= self._hidden(row)
        except SealBroken:
            values |= {"headers": {}, "env": {}, "sealed_away": True}
        known = {name: value for name, value in values.items() if name in _SPEC_FIELDS}
        known["limits"] = _limits(known.get("limits"))
        if mark := known.get("spec"):
            known["spec"] = Document(mark["sha256"], mark["bytes"])
        if known.get("lock") not in (None, *LOCKS):
            known["lock"] = "enforce"  # a word of a newer version: the strictest that we know
        lists = ("tags", "args", "include", "exclude")
        return ServerSpec(**known | {name: tuple(known.get(name, ())) for name in lists})

    def _readable(self, row: Mapping[str, Any]) -> Server | None:
        """A row as a server; one that we can't read (of a newer version, say) must not hide the others."""
        try:
            return self._server(row)
        except Exception:
            log.exception("the row of server %s can't be read", row["name"])
            return None

    def _server(self, row: Mapping[str, Any]) -> Server:
        spec = self._spec(row)
        if spec.sealed_away:
            row = {**row, "state": "unreachable", "reason": _SEALED_AWAY}
        elif spec.transport_type == STDIO and spec.enabled and not self._runs_programs:
            row = {**row, "state": "unreachable", "reason": NO_PROGRAMS}
        elif spec.transport_type == STDIO and self._runs_programs and (row["reason"] or "").endswith(_NOT_RUN):
            row = {**row, "state": "starting", "reason": None}  # of a time when programs were not run
        return Server(
            spec=spec,
            revision=row["revision"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            state=row["state"],
            reason=row["reason"],
            discovered_at=row["discovered_at"],
            unreachable_since=row["unreachable_since"],
            offers=NO_OFFERS if row["offers"] is None else Offers.from_bytes(row["offers"]),
            digest=row["digest"],
            names=orjson.loads(row["names"]),
            approved=read_approved(row),
            flags=tuple(orjson.loads(row["flags"] or b"[]")),
        )


def _limits(value: Any) -> Limits | None:
    try:
        return read_limits(value)
    except InvalidParams:
        return None  # of a newer version, say


def steady(reason: str) -> str:
    """What of a reason is the same at each failure: without process ids, times and durations."""
    return _UNSTEADY.sub("#", reason)


async def _holds(connection: Connection, claim: Claim) -> bool:
    """Whether a claim is the latest, and stays that until the end of the transaction."""
    cursor = await connection.execute(
        "SELECT FROM servers WHERE name = %s AND claim = %s AND enabled FOR SHARE", (claim.spec.name, claim.number)
    )
    return await cursor.fetchone() is not None


async def _insert(connection: Connection, values: Mapping[str, Any]) -> None:
    await connection.execute(
        "INSERT INTO servers (name, spec, sealed, revision, enabled, state, reason, next_refresh) "
        "VALUES (%(name)s, %(spec)s, %(sealed)s, %(revision)s, %(enabled)s, %(state)s, %(reason)s, "
        "now() + make_interval(secs => %(claim)s))",
        values,
    )


async def _update(connection: Connection, stored: ServerSpec, spec: ServerSpec, values: Mapping[str, Any]) -> None:
    if stored.fingerprint != spec.fingerprint:  # another upstream: what the old one offered says nothing
        await connection.execute(
            "UPDATE servers SET offers = NULL, digest = '', names = '{}', flags = NULL WHERE name = %s", (spec.name,)
        )
    if stored.prefix != spec.prefix:
        kinds = [*names.STRICT, *names.STRICT.values()]
        await connection.execute("DELETE FROM names WHERE server = %s AND kind = ANY(%s)", (spec.name, kinds))
        await connection.execute("UPDATE servers SET digest = '', names = '{}' WHERE name = %s", (spec.name,))
    if _reached_as(stored) != _reached_as(spec):
        await connection.execute(
            "UPDATE servers SET state = %(state)s, reason = %(reason)s, unreachable_since = NULL, failures = 0 "
            "WHERE name = %(name)s",
            values,
        )
    await connection.execute(
        "UPDATE servers SET spec = %(spec)s, sealed = %(sealed)s, revision = %(revision)s, enabled = %(enabled)s, "
        "updated_at = now(), claim = claim + 1, claimed = true, "
        "next_refresh = now() + make_interval(secs => %(claim)s) WHERE name = %(name)s",
        values,
    )


async def _keep_document(connection: Connection, spec: ServerSpec) -> None:
    """Store a document that was sent; none is kept of a server that has none."""
    if spec.spec is None:
        await connection.execute("DELETE FROM documents WHERE server = %s", (spec.name,))
    elif spec.spec.data is not None:
        await connection.execute(
            "INSERT INTO documents (server, data) VALUES (%s, %s) "
            "ON CONFLICT (server) DO UPDATE SET data = excluded.data",
            (spec.name, spec.spec.data),
        )


async def _forget_names(connection: Connection, stored: ServerSpec, spec: ServerSpec) -> None:
    """Let go of public names of tools that an override renames, or does not any more: the next look gives others."""
    before, after = _renamed(stored), _renamed(spec)
    changed = [tool for tool in before | after if before.get(tool) != after.get(tool)]
    if not changed:
        return
    kinds = ["tools", names.STRICT["tools"]]
    await connection.execute(
        "DELETE FROM names WHERE server = %s AND kind = ANY(%s) AND local = ANY(%s)", (spec.name, kinds, changed)
    )
    cursor = await connection.execute("SELECT names FROM servers WHERE name = %s", (spec.name,))
    row = await cursor.fetchone()
    known: dict[str, dict[str, str]] = orjson.loads(row["names"]) if row else {}
    for kind in kinds:
        known[kind] = {local: public for local, public in known.get(kind, {}).items() if local not in changed}
    await connection.execute(
        "UPDATE servers SET digest = '', names = %s WHERE name = %s", (orjson.dumps(known), spec.name)
    )


def _renamed(spec: ServerSpec) -> dict[str, str]:
    return {tool: override["name"] for tool, override in spec.overrides.items() if "name" in override}


def _reached_as(spec: ServerSpec) -> tuple[object, ...]:
    """What decides whether a server's state still means something."""
    return spec.fingerprint, spec.transport_type, spec.enabled
