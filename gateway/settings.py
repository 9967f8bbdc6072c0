"""Every setting, where it comes from and what it may be.

A frozen value made once, at the door of the process; nothing below reads the environment.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from gateway.errors import SettingsError

DEMO_KEY = "sk-master-key-change-me"
_IN_FILES = (
    "GATEWAY_MASTER_KEY", "LITELLM_MASTER_KEY", "GATEWAY_METRICS_KEY", "GATEWAY_SECRET", "DATABASE_URL", "REDIS_URL",
    "REDIS_PASSWORD",
)  # fmt: skip
_ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104
_ELSEWHERE = frozenset({"GATEWAY_URL", "GATEWAY_KEY"})  # read by the command line
_PLACE = re.compile(r"[A-Za-z0-9*?._-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?")
_OF_OTHERS = re.compile(r"GATEWAY_VALUE_|.*(_SERVICE_(HOST|PORT)|_PORT_[0-9]+_(TCP|UDP))")
"""Secrets that servers refer to, and what Kubernetes sets for a service named `gateway`."""
DATA_DIR = Path(".mcp-gateway")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _setting(default: Any, *names: str, read: Callable[[str], Any] = str, doc: str = "", unit: str = "") -> Any:
    return field(default=default, metadata={"names": names, "read": read, "doc": doc, "unit": unit})


def _flag(text: str) -> bool:
    match text.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError("expected true or false")


def _between(low: float, high: float, number: Callable[[str], Any] = int) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = number(text)
        except ValueError:
            raise ValueError(f"expected a number from {low:g} to {high:g}") from None
        if not low <= value <= high:
            raise ValueError(f"expected a number from {low:g} to {high:g}")
        return value

    return read


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return text.lower()

    return read


def _list(text: str) -> tuple[str, ...]:
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def _upstreams(text: str) -> tuple[str, ...]:
    entries = _list(text)
    for entry in entries:
        if "/" in entry:
            try:
                ip_network(entry, strict=False)
            except ValueError:
                raise ValueError(f"{entry!r} is no network (10.1.0.0/16 is one)") from None
        elif not _PLACE.fullmatch(entry):
            raise ValueError(f"{entry!r} is no network, address, host name or glob (*.corp.example is one)")
    return entries


def _secrets(text: str) -> tuple[str, ...]:
    secrets = _list(text)
    if not secrets or min(map(len, secrets)) < 32:
        raise ValueError("expected at least 32 characters (several, newest first, are separated by commas)")
    return secrets


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")  # of a text
    return value


def _folder(text: str) -> Path:
    if not text.startswith("/") or text == "/":
        raise ValueError("expected an absolute path of a folder")
    return Path(os.path.normpath(text))


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError("expected an absolute http or https URL without query")
    return text.rstrip("/")


def _word(text: str) -> str:
    if not text or len(text) > 8 or not all(letter.isalnum() or letter in "._-" for letter in text):
        raise ValueError("expected 1 to 8 letters, digits, '.', '_' or '-'")
    return text


def _key(text: str) -> str:
    keys = _list(text)
    if not keys or any(len(key) < 8 or not key.isascii() or any(map(str.isspace, key)) for key in keys):
        raise ValueError("expected at least 8 ASCII characters without spaces (several are separated by commas)")
    return ",".join(keys)


@dataclass(frozen=True, slots=True)
class Settings:
    """What one gateway runs with; times in seconds, sizes in bytes."""

    enabled: bool = _setting(True, "MCP_GATEWAY_ENABLED", read=_flag, doc="false answers every MCP address with 404")
    master_key: str | None = _setting(
        None,
        "GATEWAY_MASTER_KEY",
        "LITELLM_MASTER_KEY",
        read=_key,
        doc="the administrator's bearer key; `new,old` while it is replaced: both are taken",
    )
    database_url: str | None = _setting(
        None, "DATABASE_URL", doc="PostgreSQL; unset: `serve` runs its own in the data directory"
    )
    redis_url: str | None = _setting(
        None,
        "REDIS_URL",
        doc="Redis or Valkey; unset: `serve` runs its own (also `REDIS_HOST`, `REDIS_PORT`, `REDIS_PASSWORD`)",
    )
    host: str = _setting("127.0.0.1", "GATEWAY_HOST", doc="the address to listen on")
    port: int = _setting(4000, "GATEWAY_PORT", read=_between(0, 65535), doc="the port to listen on")
    workers: int = _setting(2, "GATEWAY_WORKERS", read=_between(1, 64), doc="hypercorn workers of this replica")
    replica: str = _setting("", "GATEWAY_REPLICA", doc="this replica's name; default: host name and port")
    public_url: str | None = _setting(
        None,
        "GATEWAY_PUBLIC_URL",
        read=_base_url,
        doc="the base of every URL that is handed out; unset: as the client reached us",
    )
    allowed_origins: tuple[str, ...] = _setting(
        (), "GATEWAY_ALLOWED_ORIGINS", read=_list, doc="browser origins let in beside loopback and the public URL"
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "GATEWAY_ALLOWED_HOSTS",
        read=_list,
        doc="Host names let in beside loopback, the listening address and the public URL; `*` for any",
    )
    allow_private_upstreams: bool = _setting(
        False,
        "GATEWAY_ALLOW_PRIVATE_UPSTREAMS",
        read=_flag,
        doc="true lets servers have private and loopback addresses; link-local and metadata stay refused",
    )
    allowed_upstreams: tuple[str, ...] = _setting(
        (),
        "GATEWAY_ALLOWED_UPSTREAMS",
        read=_upstreams,
        doc="where servers may have private and loopback addresses: `10.1.0.0/16,*.corp.example,db`",
    )
    allow_stdio: bool = _setting(
        False,
        "GATEWAY_ALLOW_STDIO",
        read=_flag,
        doc="true lets administrators register servers that `serve` runs as programs on this machine",
    )
    bridge: str | None = _setting(
        None, "GATEWAY_BRIDGE", doc="the socket of the process that runs these programs; `serve` sets it by itself"
    )
    max_children: int = _setting(
        64, "GATEWAY_MAX_CHILDREN", read=_between(1, 10_000), doc="such programs at once, on one machine"
    )
    log_format: str = _setting(
        "text",
        "GATEWAY_LOG_FORMAT",
        read=_one_of("text", "json"),
        doc="`text` or `json`, to standard error; one line per call",
    )
    log_level: str = _setting(
        "info",
        "GATEWAY_LOG_LEVEL",
        read=_one_of("debug", "info", "warning", "error"),
        doc="the least important lines that are written; a call is `info`",
    )
    http1: str = _setting(
        "httptools",
        "GATEWAY_HTTP1",
        read=_one_of("httptools", "h11"),
        doc="who parses HTTP/1.1 under hypercorn: `httptools`, or its own `h11`, which takes five times as long",
    )
    call_log: str = _setting(
        "all",
        "GATEWAY_CALL_LOG",
        read=_one_of("all", "errors", "none"),
        doc="which calls have a line: `all`, those that did not end well (`errors`), or `none`; figures count all",
    )
    secret: tuple[str, ...] = _setting(
        (),
        "GATEWAY_SECRET",
        read=_secrets,
        doc="signs sessions, seals stored headers; several, newest first; unset: made once and kept in Postgres",
    )
    data_dir: Path = _setting(DATA_DIR, "GATEWAY_DATA_DIR", read=Path, doc="where embedded stores live")
    metrics: str = _setting(
        "key",
        "GATEWAY_METRICS",
        read=_one_of("key", "open", "off"),
        doc="who may read /metrics: whoever has the master key or GATEWAY_METRICS_KEY, everybody, nobody",
    )
    metrics_key: str | None = _setting(
        None, "GATEWAY_METRICS_KEY", read=_key, doc="a bearer key that opens /metrics and nothing else"
    )
    metrics_tools: bool = _setting(
        False, "GATEWAY_METRICS_TOOLS", read=_flag, doc="true counts calls by tool as well, which makes many figures"
    )
    page: bool = _setting(True, "GATEWAY_PAGE", read=_flag, doc="false switches the page for browsers off")
    unlisted: str = _setting(
        "refuse",
        "GATEWAY_UNLISTED",
        read=_one_of("refuse", "forward"),
        doc="what becomes of a tool or prompt that a server does not list, at the server's own address",
    )
    separator: str = _setting("__", "GATEWAY_SEPARATOR", read=_word, doc="between server and tool in public names")
    name_limit: int = _setting(
        128,
        "GATEWAY_NAME_LIMIT",
        read=_between(32, 512),
        doc="longest public tool or prompt name; longer ones end in a hash",
        unit="characters",
    )
    name_chars: str = _setting(
        "any",
        "GATEWAY_NAME_CHARS",
        read=_one_of("any", "strict"),
        doc="strict lists tools and prompts under their second public names, of letters, digits, `_` and `-`",
    )
    tools_mode: str = _setting(
        "full",
        "GATEWAY_TOOLS_MODE",
        read=_one_of("full", "search", "auto"),
        doc="how MCP lists tools where neither the URL (`?tools=`) nor the toolset says: all of them; four that find "
        "and call the others; auto: those four where all would take more than GATEWAY_SEARCH_TOKENS",
    )
    tool_ranking: str = _setting(
        "words",
        "GATEWAY_TOOL_RANKING",
        read=_one_of("words", "semantic"),
        doc="how `search_tools` ranks: by words, or also by what they mean, which the extra `semantic` knows",
    )
    search_tokens: int = _setting(
        10_000,
        "GATEWAY_SEARCH_TOKENS",
        read=_between(0, 10_000_000),
        doc="what the tools of a caller may take of a model's context before `auto` lists four in their place",
        unit="tokens",
    )
    spill_bytes: int = _setting(
        256 << 20,
        "GATEWAY_SPILL_BYTES",
        read=_between(1 << 20, 64 << 30),
        doc="how much Redis keeps of results that were too large to be sent (overrides: `spill`), over all replicas",
        unit="bytes",
    )
    spill_seconds: int = _setting(
        600, "GATEWAY_SPILL_SECONDS", read=_between(10, 86_400), doc="how long such a result is kept", unit="seconds"
    )
    page_size: int = _setting(
        500, "GATEWAY_PAGE_SIZE", read=_between(1, 10_000), doc="items per page of an aggregated MCP list"
    )
    max_connections: int = _setting(
        10_000,
        "GATEWAY_MAX_CONNECTIONS",
        read=_between(16, 1_000_000),
        doc="connections of one worker; for more an idle one is closed, else the new one",
    )
    max_head: int = _setting(
        32 << 10,
        "GATEWAY_MAX_HEAD",
        read=_between(4 << 10, 1 << 20),
        doc="largest head of a request: its target and headers",
        unit="bytes",
    )
    max_fields: int = _setting(
        100, "GATEWAY_MAX_FIELDS", read=_between(20, 256), doc="most header lines of a request; more get 431"
    )
    max_body: int = _setting(
        4 << 20, "GATEWAY_MAX_BODY", read=_between(1 << 10, 1 << 30), doc="largest request body", unit="bytes"
    )
    max_result: int = _setting(
        16 << 20,
        "GATEWAY_MAX_RESULT",
        read=_between(1 << 10, 1 << 30),
        doc="largest answer or event of a server",
        unit="bytes",
    )
    max_batch: int = _setting(
        50, "GATEWAY_MAX_BATCH", read=_between(1, 1000), doc="most messages in one JSON-RPC batch"
    )
    max_in_flight: int = _setting(
        1000,
        "GATEWAY_MAX_IN_FLIGHT",
        read=_between(1, 1_000_000),
        doc="requests of one principal under way at one worker; more get 429",
    )
    max_streams: int = _setting(
        500,
        "GATEWAY_MAX_STREAMS",
        read=_between(1, 1_000_000),
        doc="open streams of one principal at one worker; more get 429",
    )
    max_server_calls: int = _setting(
        64,
        "GATEWAY_MAX_SERVER_CALLS",
        read=_between(1, 10_000),
        doc="calls under way to one server from one worker; more get 429",
    )
    breaker_failures: int = _setting(
        5,
        "GATEWAY_BREAKER_FAILURES",
        read=_between(1, 1000),
        doc="failures in a row after which a server is left alone",
    )
    breaker_seconds: float = _setting(
        30.0,
        "GATEWAY_BREAKER_SECONDS",
        read=_between(1, 3600, float),
        doc="longest time that a failing server is left alone; it begins with 1 and doubles",
        unit="seconds",
    )
    body_seconds: float = _setting(
        30.0,
        "GATEWAY_BODY_SECONDS",
        read=_between(0.1, 3600, float),
        doc="for a request body to arrive",
        unit="seconds",
    )
    connect_seconds: float = _setting(
        5.0,
        "GATEWAY_CONNECT_SECONDS",
        read=_between(0.1, 60, float),
        doc="for a connection to a server (its handshake: twice that)",
        unit="seconds",
    )
    call_seconds: float = _setting(
        60.0,
        "GATEWAY_CALL_SECONDS",
        read=_between(0.1, 86400, float),
        doc="for a call, unless the server's `timeout_seconds` says otherwise; progress starts it again",
        unit="seconds",
    )
    call_cap_seconds: float = _setting(
        1800.0,
        "GATEWAY_CALL_CAP_SECONDS",
        read=_between(0.1, 86400, float),
        doc="for a call, progress or not",
        unit="seconds",
    )
    keepalive_seconds: float = _setting(
        15.0,
        "GATEWAY_KEEPALIVE_SECONDS",
        read=_between(0.05, 3600, float),
        doc="between comments on a silent stream",
        unit="seconds",
    )
    poll_seconds: float = _setting(
        2.0,
        "GATEWAY_POLL_SECONDS",
        read=_between(0.05, 300, float),
        doc="between looks at the registry when Redis says nothing",
        unit="seconds",
    )
    audit: str = _setting(
        "calls",
        "GATEWAY_AUDIT",
        read=_one_of("calls", "changes", "off"),
        doc="what has a row in the audit: `calls` and changes, `changes`, or `off`",
    )
    audit_days: int = _setting(
        30, "GATEWAY_AUDIT_DAYS", read=_between(1, 3650), doc="for which rows of the audit are kept", unit="days"
    )
    audit_arguments: str = _setting(
        "off",
        "GATEWAY_AUDIT_ARGUMENTS",
        read=_one_of("off", "masked", "full"),
        doc="whether a call's arguments are kept in the audit: `off` (a digest of them only), `masked` or in `full`",
    )
    default_limits: Mapping[str, Any] | None = _setting(
        None,
        "GATEWAY_DEFAULT_LIMITS",
        read=_object,
        doc='limits of keys that have none, as JSON: `{"calls_per_second": 10, "concurrent": 8}`',
    )
    secrets_dir: Path = _setting(
        Path("/run/secrets"),
        "GATEWAY_SECRETS_DIR",
        read=_folder,
        doc="where the files are that `${file:…}` in servers' headers and variables may read",
    )
    keys_stale_seconds: float = _setting(
        300.0,
        "GATEWAY_KEYS_STALE_SECONDS",
        read=_between(1, 86_400, float),
        doc="without the database, after which `/readyz` says that revoked keys may not be known here",
        unit="seconds",
    )
    refresh_seconds: float = _setting(
        60.0,
        "GATEWAY_REFRESH_SECONDS",
        read=_between(0.1, 86400, float),
        doc="between looks at what a server offers",
        unit="seconds",
    )
    retry_seconds: float = _setting(
        15.0,
        "GATEWAY_RETRY_SECONDS",
        read=_between(0.1, 3600, float),
        doc="longest pause between looks at a server that is down",
        unit="seconds",
    )
    hang_seconds: float = _setting(
        30.0,
        "GATEWAY_HANG_SECONDS",
        read=_between(0, 3600, float),
        doc="after which a worker whose loop hangs is replaced; 0: never",
        unit="seconds",
    )
    drain_seconds: float = _setting(
        10.0,
        "GATEWAY_DRAIN_SECONDS",
        read=_between(0, 3600, float),
        doc="for running calls after SIGTERM",
        unit="seconds",
    )
    drain_delay: float = _setting(
        0.0,
        "GATEWAY_DRAIN_DELAY",
        read=_between(0, 600, float),
        doc="after SIGTERM, in which /readyz is 503 and everything is served as before",
        unit="seconds",
    )
    session_seconds: int = _setting(
        86400,
        "GATEWAY_SESSION_SECONDS",
        read=_between(60, 31_536_000),
        doc="longest life of an MCP session",
        unit="seconds",
    )
    session_idle_seconds: float = _setting(
        1800.0,
        "GATEWAY_SESSION_IDLE_SECONDS",
        read=_between(1, 31_536_000, float),
        doc="life of an MCP session that nobody uses",
        unit="seconds",
    )
    max_sessions: int = _setting(
        10_000, "GATEWAY_MAX_SESSIONS", read=_between(1, 10_000_000), doc="MCP sessions of one principal; more get 429"
    )
    resume_seconds: float = _setting(
        300.0,
        "GATEWAY_RESUME_SECONDS",
        read=_between(1, 86400, float),
        doc="for which a stream that was cut can be resumed",
        unit="seconds",
    )
    resume_bytes: int = _setting(
        4 << 20,
        "GATEWAY_RESUME_BYTES",
        read=_between(1 << 10, 1 << 30),
        doc="kept of one stream for that; the last event is always kept",
        unit="bytes",
    )
    resume_total: int = _setting(
        256 << 20,
        "GATEWAY_RESUME_TOTAL",
        read=_between(1 << 16, 1 << 40),
        doc="kept of all streams of one principal by one worker for that; more can't be resumed",
        unit="bytes",
    )
    max_hello: int = _setting(
        64 << 10,
        "GATEWAY_MAX_HELLO",
        read=_between(1 << 10, 1 << 24),
        doc="largest capabilities and clientInfo of a client together",
        unit="bytes",
    )
    max_subscriptions: int = _setting(
        1_000,
        "GATEWAY_MAX_SUBSCRIPTIONS",
        read=_between(1, 100_000),
        doc="resources that one session is subscribed to",
    )
    stub_port: int = _setting(9100, "GATEWAY_STUB_PORT", read=_between(1, 65535), doc="demo: the stub's port")
    nginx_port: int = _setting(8080, "GATEWAY_NGINX_PORT", read=_between(1, 65535), doc="demo: nginx's port")
    replica2_port: int = _setting(
        4001, "GATEWAY_REPLICA2_PORT", read=_between(1, 65535), doc="demo: the second replica's port"
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; an empty value counts as unset. Raises SettingsError.

        A secret may stand in a file, whose path is then in `<NAME>_FILE`: so containers get theirs.
        """
        environment = with_secrets(environment)
        values: dict[str, Any] = {}
        for each in fields(cls):
            for name in each.metadata["names"]:
                if text := environment.get(name, "").strip():
                    values.setdefault(each.name, _read(name, text, each.metadata["read"]))
        if "redis_url" not in values and environment.get("REDIS_HOST"):
            values["redis_url"] = _redis_url(environment)
        settings = cls(**values)
        settings.check()
        return settings

    @staticmethod
    def misspelled(environment: Mapping[str, str]) -> list[str]:
        """One line for each variable that looks like a setting of ours and is none."""
        known = {name for each in fields(Settings) for name in each.metadata["names"]} | _ELSEWHERE
        known |= {f"{name}_FILE" for name in _IN_FILES}
        lines = []
        for name in sorted(environment):
            if name in known or not name.startswith(("GATEWAY_", "MCP_GATEWAY_")) or _OF_OTHERS.match(name):
                continue
            near = get_close_matches(name, known, 1, 0.8)
            meant = f"; did you mean {near[0]}?" if near else ", and it has no effect"
            lines.append(f"{name}: there is no such setting{meant}")
        return lines

    def check(self) -> None:
        """Refuse combinations that would be unsafe. Raises SettingsError."""
        if DEMO_KEY in self.master_keys and self.host not in LOOPBACK:
            raise SettingsError(
                f"GATEWAY_MASTER_KEY: the demo key is public, so GATEWAY_HOST={self.host} is refused with it; "
                "set a key of your own."
            )
        if self.tool_ranking == "semantic" and any(find_spec(name) is None for name in _SEMANTIC):
            raise SettingsError(NO_SEMANTIC)

    @property
    def master_keys(self) -> tuple[str, ...]:
        """The administrator's keys, the newest first: one principal."""
        return _list(self.master_key or "")

    @property
    def lets_any_host_in(self) -> bool:
        """Whether it listens everywhere and has no names, so that any Host header is let in."""
        return self.host in _ANYWHERE and not self.allowed_hosts and not self.public_url

    @property
    def replica_name(self) -> str:
        return self.replica or f"{platform.node()}:{self.port}"


_SEMANTIC = ("numpy", "safetensors", "tokenizers", "wordllama")
NO_SEMANTIC = (
    "GATEWAY_TOOL_RANKING: semantic needs packages that are not installed: pip install 'mcp-micro-gateway[semantic]'."
)


def with_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The same environment with the secrets that stand in files, for this process and its children.

    Raises SettingsError.
    """
    found = dict(environment)
    for name in _IN_FILES:
        path = found.pop(f"{name}_FILE", "").strip()
        if not path:
            continue
        if environment.get(name, "").strip():
            raise SettingsError(f"{name}_FILE: {name} is set as well; set one of the two.")
        try:
            found[name] = Path(path).read_text().strip()
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SettingsError(f"{name}_FILE: {path} can't be read: {why}.") from None
        if not found[name]:
            raise SettingsError(f"{name}_FILE: {path} is empty.")
    return found


def _read(name: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except ValueError as error:
        shown = "" if "KEY" in name or "SECRET" in name or "URL" in name else f" (it is {text!r})"
        raise SettingsError(f"{name}: {error}{shown}") from None


def _redis_url(environment: Mapping[str, str]) -> str:
    host = environment["REDIS_HOST"].strip()
    port = _read("REDIS_PORT", environment.get("REDIS_PORT", "").strip() or "6379", _between(1, 65535))
    password = environment.get("REDIS_PASSWORD", "").strip()
    credentials = f":{quote(password, safe='')}@" if password else ""
    return f"redis://{credentials}{host}:{port}/0"
