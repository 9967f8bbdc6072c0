"""`mcp-gateway keys …` and `whoami`: what an administrator does with keys."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer
from rich.markup import escape
from rich.table import Table

from gateway.cli.client import Exit, Refused, Remote
from gateway.cli.rules import read_json, rule_of
from gateway.cli.terminal import AsJson, Key, Url, asking, print_json, print_table, text_of

keys = typer.Typer(no_args_is_help=True, help="Keys of people, agents and pipelines.")

_ID = re.compile(r"[0-9A-Za-z]{12}")
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_KINDS = ("servers", "tools", "prompts", "resources", "toolsets")

Named = Annotated[str, typer.Argument(metavar="KEY", help="the key's id, or its name")]
Role = Annotated[str | None, typer.Option(help="admin, operator (servers, no keys) or user (what it is granted)")]
Allow = Annotated[
    list[str] | None,
    typer.Option(metavar="SERVER[:TOOL]", help="what it may see and call, with * and ?; may be repeated"),
]
AllowTag = Annotated[list[str] | None, typer.Option(metavar="TAG", help="all servers with this tag; may be repeated")]
AllowToolset = Annotated[
    list[str] | None, typer.Option(metavar="SLUG", help="a toolset's address and what it holds; may be repeated")
]
Deny = Annotated[
    list[str] | None, typer.Option(metavar="SERVER[:TOOL]", help="what it may not, whatever else allows it")
]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="of what is allowed only tools that read (readOnlyHint)")]
Grants = Annotated[str | None, typer.Option(metavar="FILE", help="grants as JSON; - is standard input")]
Owner = Annotated[str | None, typer.Option(help="whose it is")]
Tag = Annotated[list[str] | None, typer.Option(help="a label; may be repeated")]
Rate = Annotated[float | None, typer.Option(help="calls a second, over all replicas")]
Burst = Annotated[int | None, typer.Option(help="calls at once after a pause")]
Concurrent = Annotated[int | None, typer.Option(help="calls under way at once")]
PerDay = Annotated[int | None, typer.Option("--per-day", help="calls a day (UTC)")]
Unlimited = Annotated[bool, typer.Option("--unlimited", help="without limits of its own")]
Expires = Annotated[str | None, typer.Option(metavar="TIME", help="30d, 12h, 2027-01-31T00:00:00Z, or never")]


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="who or what it is for")],
    role: Role = None,
    allow: Allow = None,
    allow_tag: AllowTag = None,
    allow_toolset: AllowToolset = None,
    deny: Deny = None,
    read_only: ReadOnly = False,
    grants: Grants = None,
    owner: Owner = None,
    tag: Tag = None,
    expires: Expires = None,
    rate: Rate = None,
    burst: Burst = None,
    concurrent: Concurrent = None,
    per_day: PerDay = None,
    unlimited: Unlimited = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it: it is shown this once."""
    fields = _fields(None, role, allow, allow_tag, allow_toolset, deny, read_only, grants, owner, tag, expires)
    fields |= _limits(rate, burst, concurrent, per_day, unlimited=unlimited)
    with asking(url, key, as_json) as to:
        made = to.remote.ask("POST", "/keys", {"name": name, **fields})
        if to.as_json:
            print_json(made)
            return
        typer.echo(made["key"])
        typer.echo(f"{made['name']} has the id {made['id']}. The key is shown this once: keep it.", err=True)
        if made["role"] == "user" and not (made["grants"] or {}).get("allow"):
            typer.echo(
                f"It is granted nothing yet: `keys update {made['name']} --allow SERVER` changes that.", err=True
            )


@keys.command("update")
def update_key(
    named: Named,
    name: Annotated[str | None, typer.Option(help="another name")] = None,
    role: Role = None,
    allow: Allow = None,
    allow_tag: AllowTag = None,
    allow_toolset: AllowToolset = None,
    deny: Deny = None,
    read_only: ReadOnly = False,
    grants: Grants = None,
    owner: Owner = None,
    tag: Tag = None,
    expires: Expires = None,
    rate: Rate = None,
    burst: Burst = None,
    concurrent: Concurrent = None,
    per_day: PerDay = None,
    unlimited: Unlimited = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Change a key; its grants are replaced as a whole. What it has open follows at once."""
    fields = _fields(name, role, allow, allow_tag, allow_toolset, deny, read_only, grants, owner, tag, expires)
    fields |= _limits(rate, burst, concurrent, per_day, unlimited=unlimited)
    if not fields:
        raise typer.BadParameter("there is nothing to change; say what, for example --allow SERVER")
    with asking(url, key, as_json) as to:
        changed = to.remote.ask("PATCH", f"/keys/{_id(to.remote, named)}", fields)
        _show(changed, as_json=to.as_json)


@keys.command("list")
def list_keys(
    owner: Owner = None,
    role: Annotated[str | None, typer.Option(help="only those of this role")] = None,
    every: Annotated[bool, typer.Option("--all", help="also those that were revoked or have expired")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List keys, without their secrets."""
    with asking(url, key, as_json) as to:
        found = [each for each in _all(to.remote, owner=owner, role=role) if every or _is_live(each)]
        if to.as_json:
            print_json({"keys": found})
            return
    table = Table("name", "id", "role", "owner", "state", "last used", "grants")
    for each in found:
        said = "" if each["role"] != "user" else json.dumps(each["grants"] or {}, ensure_ascii=False)
        cells = [each["name"], each["id"], each["role"], each["owner"] or "", _state(each), _day(each["last_used_at"])]
        table.add_row(*map(escape, [*cells, said]))
    print_table(table)


@keys.command("show")
def show_key(named: Named, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show one key, without its secret."""
    with asking(url, key, as_json) as to:
        _show(to.remote.ask("GET", f"/keys/{_id(to.remote, named)}"), as_json=to.as_json)


@keys.command("rotate")
def rotate_key(
    named: Named,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="how long the old secret is taken, too: 0, 1h, 7d")
    ] = "1h",
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret and print it: it is shown this once. Sessions go on."""
    seconds = _seconds(overlap, "--overlap")
    with asking(url, key, as_json) as to:
        made = to.remote.ask("POST", f"/keys/{_id(to.remote, named)}/rotate", {"overlap_seconds": seconds})
        if to.as_json:
            print_json(made)
            return
        typer.echo(made["key"])
        until = made.get("old_secret_until")
        old = f"is taken until {until}" if until else "is not taken any more"
        typer.echo(f"The key is shown this once: keep it. The old secret {old}.", err=True)


@keys.command("revoke")
def revoke_key(
    named: Annotated[str | None, typer.Argument(metavar="[KEY]", help="the key's id, or its name")] = None,
    owner: Annotated[str | None, typer.Option(help="all keys of this owner instead")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """End a key for good, or all keys of an owner; what they have open ends, too."""
    if (named is None) == (owner is None):
        raise typer.BadParameter("name a key, or --owner NAME for all of an owner: one of the two")
    with asking(url, key, as_json) as to:
        if named is not None:
            ended = [to.remote.ask("DELETE", f"/keys/{_id(to.remote, named)}")]
        else:
            ended = to.remote.ask("DELETE", f"/keys?{urlencode({'owner': owner})}")["keys"]
        if to.as_json:
            print_json({"keys": ended})
            return
        for each in ended:
            typer.echo(f"{each['name']} ({each['id']}) is revoked")
        if not ended:
            typer.echo(f"{owner} has no keys", err=True)


@keys.command("access")
def key_access(
    named: Named,
    as_if: Annotated[
        str | None, typer.Option("--as-if", metavar="FILE", help="with these grants (JSON) in place of its own")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show what a key sees now, and which of its grants match nothing."""
    with asking(url, key, as_json) as to:
        path = f"/keys/{_id(to.remote, named)}/access"
        seen = (
            to.remote.ask("GET", path) if as_if is None else to.remote.ask("POST", path, {"grants": read_json(as_if)})
        )
        if to.as_json:
            print_json(seen)
            return
    table = Table("kind", "name")
    for kind in _KINDS:
        for name in seen[kind]:
            table.add_row(kind.removesuffix("s"), escape(name))
    print_table(table)
    for rule in seen["unmatched"]:
        typer.echo(f"matches nothing that is registered: {rule}", err=True)


def whoami(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show whose key this is, and what it may do."""
    with asking(url, key, as_json) as to:
        _show(to.remote.ask("GET", "/whoami"), as_json=to.as_json)


def _fields(
    name: str | None,
    role: str | None,
    allow: list[str] | None,
    allow_tag: list[str] | None,
    allow_toolset: list[str] | None,
    deny: list[str] | None,
    read_only: bool,
    grants: str | None,
    owner: str | None,
    tag: list[str] | None,
    expires: str | None,
) -> dict[str, Any]:
    """The fields of a key that were given."""
    given: dict[str, Any] = {"name": name, "role": role, "owner": owner, "tags": tag}
    fields = {field: value for field, value in given.items() if value is not None}
    if grants is not None:
        if allow or allow_tag or allow_toolset or deny or read_only:
            raise typer.BadParameter("--grants FILE has all of them; --allow, --deny and --read-only are the other way")
        fields["grants"] = read_json(grants)
    elif allow or allow_tag or allow_toolset or deny or read_only:
        rules = [rule_of(each) for each in allow or ()] + [{"tags": [each]} for each in allow_tag or ()]
        if read_only and allow_toolset:
            raise typer.BadParameter("--read-only does not reach into a toolset: let its own rules say that")
        if read_only:
            rules = [rule | {"annotations": {"readOnlyHint": True}} for rule in rules or [{}]]
        rules += [{"toolsets": [each]} for each in allow_toolset or ()]
        fields["grants"] = {"allow": rules} | ({"deny": [rule_of(each) for each in deny]} if deny else {})
    if expires == "never":
        fields["expires_at"] = None
    elif expires is not None and expires[-1:] in _UNITS:
        fields["expires_in"] = _seconds(expires, "--expires")
    elif expires is not None:
        fields["expires_at"] = expires
    return fields


def _limits(
    rate: float | None, burst: int | None, concurrent: int | None, per_day: int | None, *, unlimited: bool
) -> dict[str, Any]:
    """The limits that were given; they replace those of the key as a whole."""
    given = {"calls_per_second": rate, "burst": burst, "concurrent": concurrent, "calls_per_day": per_day}
    limits = {name: value for name, value in given.items() if value is not None}
    if unlimited:
        if limits:
            raise typer.BadParameter("--unlimited has no limit beside it")
        return {"limits": None}
    return {"limits": limits} if limits else {}


def _seconds(text: str, option: str) -> int:
    number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1)
    if not number.isdecimal() or len(number) > 9:
        raise typer.BadParameter(f"{text!r} is no time: 45 (seconds), 30m, 12h, 7d or 4w", param_hint=option)
    return int(number) * unit


def _all(remote: Remote, **asked: str | None) -> list[dict[str, Any]]:
    """All keys that are asked for, over all pages."""
    found: list[dict[str, Any]] = []
    query = {name: value for name, value in asked.items() if value is not None}
    while True:
        page = remote.ask("GET", f"/keys?{urlencode(query)}")
        found += page["keys"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def _id(remote: Remote, named: str) -> str:
    """The id of a key that is named by its id or its name. Raises Refused."""
    alike = _all(remote, name=named)
    live = [each for each in alike if _is_live(each)] or alike
    if not live and _ID.fullmatch(named):
        return quote(named, safe="")
    if not live:
        raise Refused(f"There is no key {named!r}. `keys list` shows what there is.", Exit.FAILED)
    if len(live) > 1:
        ids = ", ".join(each["id"] for each in live)
        raise Refused(f"Several keys are named {named!r}; use one of the ids: {ids}", Exit.FAILED)
    return str(live[0]["id"])


def _is_live(key: dict[str, Any]) -> bool:
    return _state(key) not in ("revoked", "expired")


def _state(key: dict[str, Any]) -> str:
    if key["revoked_at"]:
        return "revoked"
    if not key["expires_at"]:
        return "live"
    if datetime.fromisoformat(key["expires_at"]).timestamp() <= datetime.now().timestamp():
        return "expired"
    return f"until {_day(key['expires_at'])}"


def _day(time: str | None) -> str:
    return "never" if time is None else time[:10]


def _show(key: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(key)
        return
    table = Table("field", "value", show_header=False)
    for field, value in key.items():
        table.add_row(field, text_of(value))
    print_table(table)
