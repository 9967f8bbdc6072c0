"""What is registered: the specification of a server, what it offers, and how it fares. Shown without secrets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from gateway.model.api_document import Document
from gateway.model.limits import Limits
from gateway.model.redaction import redact_arguments, redact_url, redact_value
from gateway.model.tool_lock import NOTHING_APPROVED, Approved, Judged, judge

STDIO = "stdio"
OPENAPI = "openapi"
NO_PROGRAMS = "It is a program, and programs are run by `mcp-gateway serve` only, with GATEWAY_ALLOW_STDIO=true."


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What was registered. `headers`, `env` and secrets in `url`, `spec_url` and `args` are never shown.

    A server is reached at `url`, or (`stdio`) by running `command` with `args` and `env` in `cwd`. An API (`openapi`)
    is at `url`; its document is `spec`, or at `spec_url`.
    """

    name: str
    url: str = ""
    title: str | None = None
    description: str = ""
    transport_type: str = "streamable_http"
    headers: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    spec: Document | None = None
    spec_url: str | None = None
    include: tuple[str, ...] = ()
    """Of a document's operations those that become tools: their names, `tag:NAME`, `METHOD /path`, with `*` and `?`."""
    exclude: tuple[str, ...] = ()
    enabled: bool = True
    prefix: str | None = None
    timeout_seconds: float | None = None
    validate_arguments: bool = False
    trust_annotations: bool = True
    """Whether what it says of its tools (`readOnlyHint` and so on) is believed where grants ask for it."""
    limits: Limits | None = None
    """How much it is called, over all callers and workers."""
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What callers see of its tools in place of what it says, by its own names (`model/overrides`)."""
    lock: str | None = None
    """What happens when it changes its tools: `warn`, `enforce` (until approved), or nothing."""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sealed_away: bool = False
    """Its secrets were stored with a GATEWAY_SECRET that we don't have: it is shown, and not called."""

    fingerprint: str = field(init=False, compare=False, repr=False)
    """The same for servers that are one and the same upstream: URL and headers, or what is run. Made once."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", self._fingerprint())

    def _fingerprint(self) -> str:
        if self.transport_type == STDIO:
            run = [self.command, self.args, sorted(self.env.items()), self.cwd]
            return hashlib.sha256(orjson.dumps(run)).hexdigest()[:16]
        parts = urlsplit(self.url)
        place = [*origin(self.url), parts.path.rstrip("/"), parts.query]
        place += [OPENAPI] if self.transport_type == OPENAPI else []
        identity = orjson.dumps([place, sorted((name.lower(), value) for name, value in self.headers.items())])
        return hashlib.sha256(identity).hexdigest()[:16]

    def public(self) -> dict[str, Any]:
        """The specification as JSON, secrets redacted."""
        if self.transport_type == STDIO:
            place: dict[str, Any] = {
                "command": self.command,
                "args": redact_arguments(self.args),
                "env": {name: redact_value(value) for name, value in self.env.items()},
                "cwd": self.cwd,
            }
        else:
            redacted = {name: redact_value(value) for name, value in self.headers.items()}
            place = {"url": redact_url(self.url), "headers": redacted}
        if self.transport_type == OPENAPI:
            place |= {
                "spec": None if self.spec is None else self.spec.public(),
                "spec_url": None if self.spec_url is None else redact_url(self.spec_url),
                "include": list(self.include),
                "exclude": list(self.exclude),
            }
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "transport_type": self.transport_type,
            **place,
            "enabled": self.enabled,
            "prefix": self.prefix,
            "timeout_seconds": self.timeout_seconds,
            "validate_arguments": self.validate_arguments,
            "trust_annotations": self.trust_annotations,
            "limits": None if self.limits is None else self.limits.public(),
            "lock": self.lock,
            "overrides": self.overrides,
            "tags": list(self.tags),
            "metadata": self.metadata,
        }


@dataclass(frozen=True, slots=True)
class Offers:
    """What a server last said it offers; items are MCP's objects as they came."""

    version: str = ""
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    server_info: Mapping[str, Any] = field(default_factory=dict)
    instructions: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    prompts: tuple[Mapping[str, Any], ...] = ()
    resources: tuple[Mapping[str, Any], ...] = ()
    templates: tuple[Mapping[str, Any], ...] = ()
    plans: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of an API: how each tool's request is made (`openapi/plan`)."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """Of an API: what its document says of itself, what was left out of it, and the key that it is known by."""

    def to_bytes(self) -> bytes:
        return orjson.dumps({each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Offers:
        known = {each.name for each in fields(cls)}  # a newer version may have more
        value = {name: each for name, each in orjson.loads(data).items() if name in known}
        for kind in ("tools", "prompts", "resources", "templates"):
            value[kind] = tuple(value[kind])
        return cls(**value)


NO_OFFERS = Offers()


@dataclass(frozen=True, slots=True)
class Server:
    """One registered server as of one registry revision.

    `state` is `starting` (not asked yet), `ready`, `unreachable` (with `reason`) or `disabled`; `names` maps, per kind,
    local to public names.
    """

    spec: ServerSpec
    revision: int
    created_at: datetime
    updated_at: datetime
    state: str = "unreachable"
    reason: str | None = None
    discovered_at: datetime | None = None
    unreachable_since: datetime | None = None
    offers: Offers = NO_OFFERS
    digest: str = ""
    """Of what it offers."""
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    approved: Approved = NOTHING_APPROVED
    flags: tuple[Mapping[str, str], ...] = ()
    """What looks suspicious in what it offers."""
    judged: Judged = field(init=False, compare=False, repr=False)
    """What is served of its tools. Made once."""
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.spec.name)
        judged = Judged(()) if self.offers is NO_OFFERS else judge(self.spec.lock, self.offers.tools, self.approved)
        object.__setattr__(self, "judged", judged)

    @property
    def is_enabled(self) -> bool:
        """Whether it takes calls."""
        return self.spec.enabled and not self.spec.sealed_away

    @property
    def is_enforced(self) -> bool:
        """Whether only what was approved of its tools is served."""
        return self.spec.lock == "enforce"

    @property
    def to_approve(self) -> frozenset[str]:
        """The tools of which something is to be approved."""
        return frozenset(self.judged.changes.keys() | self.judged.doubted.keys())

    def listed(self, kind: str) -> tuple[Mapping[str, Any], ...]:
        """What lists show of a kind, under its own names."""
        if kind == "tools":
            return self.judged.tools
        found: tuple[Mapping[str, Any], ...] = getattr(self.offers, kind)
        return found

    def public(self) -> dict[str, Any]:
        """The stored server as JSON, secrets redacted."""
        shown = self.spec.public()
        shown |= {
            "server_id": self.name,
            "state": self.state,
            "reason": self.reason,
            "discovered_at": self.discovered_at,
            "unreachable_since": self.unreachable_since,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "protocol_version": self.offers.version or None,
            "server_info": self.offers.server_info or None,
            "changes": len(self.to_approve),
            "flags": len(self.flags),
        }
        if self.offers.document:
            known = {name: self.offers.document.get(name) for name in ("title", "version", "openapi", "excluded")}
            left_out = self.offers.document.get("left_out", ())
            shown["document"] = known | {"tools": len(self.offers.tools), "left_out": len(left_out)}
        if renamed := self._renamed():
            shown["renamed"] = renamed
        return shown

    def _renamed(self) -> dict[str, str]:
        """Tools, prompts and URIs whose first choice of a public name another server held."""
        suffix = re.compile(r"_[0-9a-f]{8}\Z")
        found = {
            local: public
            for kind in ("tools", "prompts")
            for local, public in self.names.get(kind, {}).items()
            if suffix.search(public) and not suffix.search(local)
        }
        for kind in ("resources", "templates"):
            found |= {local: public for local, public in self.names.get(kind, {}).items() if local != public}
        return found


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port of a URL, with the spellings of one and the same origin made one."""
    parts = urlsplit(url)
    host = "localhost" if parts.hostname == "127.0.0.1" else parts.hostname
    return parts.scheme, host, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
