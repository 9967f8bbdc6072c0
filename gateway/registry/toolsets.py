"""The toolsets' table in Postgres, and who of their members has a bare name.

A change counts the registry's revision, as one of a server does. Whoever stores or changes a toolset decides the bare
names of its members in the same transaction; those of members that come later are decided by the first worker that
sees them (`run`): the toolset's row is locked meanwhile, so that two workers never decide differently.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from gateway.access.audit import Log
from gateway.errors import BareNamesClash, GatewayError, InvalidParams, StoreUnavailable, UnknownToolset
from gateway.model.catalogue import Catalogue
from gateway.model.override_fields import for_another_upstream
from gateway.model.parts import NAMED_KINDS
from gateway.model.toolset_fields import from_stored
from gateway.model.toolsets import BARE, Decided, Members, Toolset, ToolsetSpec, decide
from gateway.model.view import View
from gateway.registry.revisions import bump
from gateway.stores.postgres import Connection, Postgres

_MAX_DECIDED = 20_000  # names of one toolset and kind, also of tools that are gone
_AGAIN_SECONDS = 1.0

log = logging.getLogger("gateway.toolsets")

Change = Callable[[ToolsetSpec | None], ToolsetSpec]


class ToolsetTable:
    """The toolsets; a `log` writes the audit's row of a change."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def put(self, slug: str, change: Change, catalogue: Catalogue, log: Log | None = None) -> bool:
        """Store what `change` makes of the stored specification; False if that is the same.

        `change` gets None where there is none, and may refuse by raising. Raises BareNamesClash.
        """
        async with self._postgres.transaction() as connection:
            revision = await bump(connection)
            row = await _locked(connection, slug)
            stored = None if row is None else from_stored(orjson.loads(row["spec"]))
            spec = change(stored)
            if stored is not None and spec.public() == stored.public():
                await connection.rollback()
                return False
            decided: Decided = {}
            view = View(catalogue, spec.rules, {})
            if spec.names == BARE:
                before = {} if row is None or stored is None or stored.names != BARE else orjson.loads(row["bare"])
                decided, clashes = decide(before, members(view), spec.explicit)
                if clashes:
                    raise BareNamesClash(clashes)
            else:
                _check_names(view, spec)
            await connection.execute(
                "INSERT INTO toolsets (slug, spec, bare, revision) VALUES (%(slug)s, %(spec)s, %(bare)s, %(revision)s) "
                "ON CONFLICT (slug) DO UPDATE SET spec = %(spec)s, bare = %(bare)s, revision = %(revision)s, "
                "updated_at = now()",
                {
                    "slug": slug,
                    "spec": orjson.dumps(spec.public()),
                    "bare": orjson.dumps(decided),
                    "revision": revision,
                },
            )
            if log is not None:
                await log(connection, None if stored is None else stored.public(), spec.public())
            return True

    async def remove(self, slug: str, log: Log | None = None) -> None:
        """Forget a toolset; `log` writes the audit's row. Raises UnknownToolset."""
        async with self._postgres.transaction() as connection:
            await bump(connection)
            cursor = await connection.execute("DELETE FROM toolsets WHERE slug = %s RETURNING *", (slug,))
            row = await cursor.fetchone()
            if row is None:
                raise UnknownToolset(slug)
            if log is not None:
                await log(connection, from_stored(orjson.loads(row["spec"])).public(), None)

    async def decide_names(self, slug: str, catalogue: Catalogue) -> bool:
        """Decide the bare names of members that came since; True if the registry changed."""
        async with self._postgres.transaction() as connection:
            revision = await bump(connection)
            row = await _locked(connection, slug)
            spec = None if row is None else from_stored(orjson.loads(row["spec"]))
            if row is None or spec is None or spec.names != BARE:
                await connection.rollback()
                return False
            cursor = await connection.execute("SELECT name FROM servers")
            there = {each["name"] async for each in cursor}
            before = _kept(orjson.loads(row["bare"]), there, catalogue)
            decided, _ = decide(before, members(View(catalogue, spec.rules, {})), spec.explicit)
            if decided == orjson.loads(row["bare"]):
                await connection.rollback()
                return False
            await connection.execute(
                "UPDATE toolsets SET bare = %s, revision = %s WHERE slug = %s", (orjson.dumps(decided), revision, slug)
            )
            return True


class NameKeeper:
    """Has the bare names of new members decided, wherever a catalogue shows some that are not."""

    def __init__(self, table: ToolsetTable, announce: Callable[[], None]) -> None:
        """`announce` tells all workers, this one too, that the registry changed."""
        self._table = table
        self._announce = announce
        self._newest = Catalogue()
        self._look = asyncio.Event()
        self._views: dict[str, tuple[ToolsetSpec, View]] = {}

    def swapped(self, catalogue: Catalogue) -> None:
        """There is another catalogue."""
        self._newest = catalogue
        if any(toolset.spec.names == BARE for toolset in catalogue.toolsets.values()):
            self._look.set()

    async def run(self) -> None:
        """Decide names until cancelled."""
        while True:
            await self._look.wait()
            self._look.clear()
            catalogue = self._newest
            self._views = {slug: each for slug, each in self._views.items() if slug in catalogue.toolsets}
            for toolset in list(catalogue.toolsets.values()):
                if toolset.spec.names != BARE or toolset.is_decided(members(self._view(catalogue, toolset.spec))):
                    continue
                try:
                    if await self._table.decide_names(toolset.slug, catalogue):
                        self._announce()
                except StoreUnavailable:
                    self._look.set()
                    await asyncio.sleep(_AGAIN_SECONDS)
                except GatewayError as error:
                    log.warning("the names of toolset %s are not decided: %s", toolset.slug, error)

    def _view(self, catalogue: Catalogue, spec: ToolsetSpec) -> View:
        """What a toolset holds, whoever asks; of servers that are the same it is known from the last time."""
        former = self._views.get(spec.slug)
        view = View(catalogue, spec.rules, former[1].parts if former is not None and former[0] is spec else {})
        self._views[spec.slug] = spec, view
        return view


def members(view: View) -> Members:
    """What a view holds, named or not."""
    return [
        (kind, name, [(local, item["name"]) for local, item in part.named(kind)])
        for kind in NAMED_KINDS
        for name, part in view.parts.items()
    ]


async def changed_toolsets(connection: Connection, revision: int) -> tuple[tuple[Toolset, ...], frozenset[str]]:
    """The toolsets that changed after a revision, and the slugs of all, in the snapshot of a transaction."""
    cursor = await connection.execute("SELECT * FROM toolsets WHERE revision > %s", (revision,))
    toolsets = tuple([toolset async for row in cursor if (toolset := _readable(row)) is not None])
    rows = await (await connection.execute("SELECT slug FROM toolsets")).fetchall()
    return toolsets, frozenset(row["slug"] for row in rows)


async def distrust(connection: Connection, server: str, revision: int, log: Log | None = None) -> None:
    """A server's name may lead to another upstream now: toolsets trust no more what they trusted of this one."""
    cursor = await connection.execute(
        "SELECT slug, spec FROM toolsets WHERE position('\"trust\":true'::bytea IN spec) > 0 ORDER BY slug FOR UPDATE"
    )
    for row in await cursor.fetchall():
        try:
            spec = from_stored(orjson.loads(row["spec"]))
        except (InvalidParams, ValueError):
            continue  # it is not served here, either
        overrides = spec.overrides.get(server, {})
        if any(each.get("trust") for each in overrides.values()):
            before = spec.public()
            spec = replace(spec, overrides={**spec.overrides, server: for_another_upstream(overrides)})
            await connection.execute(
                "UPDATE toolsets SET spec = %s, revision = %s, updated_at = now() WHERE slug = %s",
                (orjson.dumps(spec.public()), revision, row["slug"]),
            )
            if log is not None:
                await log(connection, before, spec.public(), f"toolset:{row['slug']}")


def _check_names(view: View, spec: ToolsetSpec) -> None:
    """Refuse names of overrides that other members have. Raises InvalidParams."""
    for (server, tool), name in spec.explicit.items():
        other = view.public["tools"].get(name)
        if other is not None and (other.server.name, other.local) not in spec.explicit:
            raise InvalidParams(
                f"{tool!r} of {server!r} would be named {name!r}, as {other.local!r} of {other.server.name!r} is.",
                f"overrides.{server}.{tool}.name",
            )


async def _locked(connection: Connection, slug: str) -> Mapping[str, Any] | None:
    cursor = await connection.execute("SELECT * FROM toolsets WHERE slug = %s FOR UPDATE", (slug,))
    return await cursor.fetchone()


def _kept(decided: Mapping[str, Any], there: set[str], catalogue: Catalogue) -> dict[str, Any]:
    """What was decided, without servers that are gone; of too many names without those that nobody offers."""
    kept = {
        kind: {name: locals for name, locals in servers.items() if name in there} for kind, servers in decided.items()
    }
    for kind, servers in kept.items():
        if sum(map(len, servers.values())) > _MAX_DECIDED:
            kept[kind] = {name: dict(_offered(catalogue, kind, name, locals)) for name, locals in servers.items()}
    return kept


def _offered(catalogue: Catalogue, kind: str, name: str, locals: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    server = catalogue.servers.get(name)
    offered = None if server is None else {item["name"] for item in server.listed(kind)}
    return ((local, given) for local, given in locals.items() if offered is None or local in offered)


def _readable(row: Mapping[str, Any]) -> Toolset | None:
    """A row as a toolset; one that we can't read (of a newer version, say) must not hide the others."""
    try:
        spec = from_stored(orjson.loads(row["spec"]))
    except (InvalidParams, ValueError):
        log.exception("the row of toolset %s can't be read", row["slug"])
        return None
    return Toolset(spec, row["revision"], row["created_at"], row["updated_at"], orjson.loads(row["bare"]))
