"""Keys that people, agents and pipelines send: how they are written, and what is kept of one.

`mgw_<id>_<secret><checksum>`: 12, 32 and 6 letters of base62. The checksum is a CRC32 of what stands before it, so that
secret scanners find keys, and a mistyped one is told from an unknown one.
"""

from __future__ import annotations

import re
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.errors import InvalidParams
from gateway.model.grants import Grants, read_grants
from gateway.model.limits import Limits, read_limits
from gateway.model.principals import ROLES

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(r"(mgw_([0-9A-Za-z]{12})_[0-9A-Za-z]{32})([0-9A-Za-z]{6})")
_ID = re.compile(r"[0-9A-Za-z]{12}")
_MAX_SECONDS = 10 * 366 * 86_400
_MAX_OVERLAP = 604_800
_MAX_NAME, _MAX_OWNER = 128, 256
_MAX_TAGS, _MAX_TAG = 64, 64


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What a key is asked to be."""

    name: str
    role: str = "user"
    limits: Limits | None = None
    grants: Grants | None = None
    """As they were given; None on other roles than `user`, which see everything."""
    owner: str | None = None
    tags: tuple[str, ...] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key: everything but its secret."""

    id: str
    spec: KeySpec
    created_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    old_secret_until: datetime | None = None
    """Until when the secret before the last rotation is taken, too."""

    def public(self) -> dict[str, Any]:
        spec = self.spec
        shown: dict[str, Any] = {
            "id": self.id,
            "name": spec.name,
            "role": spec.role,
            "grants": None if spec.grants is None else spec.grants.source,
            "limits": None if spec.limits is None else spec.limits.public(),
            "owner": spec.owner,
            "tags": list(spec.tags),
            "created_at": self.created_at,
            "expires_at": spec.expires_at,
            "revoked_at": self.revoked_at,
            "last_used_at": self.last_used_at,
        }
        if self.old_secret_until is not None and self.old_secret_until > datetime.now(UTC):
            shown["old_secret_until"] = self.old_secret_until
        return shown


def new_id() -> str:
    """An id for a key, which is also its principal's."""
    return _random(12)


def new_key(id: str) -> str:
    """A key with this id and a new secret."""
    text = f"mgw_{id}_{_random(32)}"
    return text + _checksum(text)


def what_is_wrong(text: str) -> str | None:
    """Say why a text can't be a key of any gateway; None for one that could be."""
    found = _KEY.fullmatch(text)
    if found is None:
        return "It begins as a key does, but is cut off or malformed." if text.startswith("mgw_") else ""
    return None if found[3] == _checksum(found[1]) else "A letter of it is wrong: its checksum does not fit."


def is_id(text: str) -> bool:
    """Tell whether a key can have this id at all."""
    return _ID.fullmatch(text) is not None


def _random(count: int) -> str:
    return "".join(secrets.choice(_BASE62) for _ in range(count))


def _checksum(text: str) -> str:
    number, letters = zlib.crc32(text.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        letters = _BASE62[digit] + letters
    return letters


# --- what callers send ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a key that a caller sent, each read."""

    values: Mapping[str, Any] = field(default_factory=dict)

    def new(self) -> KeySpec:
        """A new key's specification. Raises InvalidParams."""
        if "name" not in self.values:
            raise InvalidParams("The field 'name' is required: who or what the key is for.", "name")
        return _checked(KeySpec(**self.values))

    def changed(self, spec: KeySpec) -> KeySpec:
        """A specification with these fields changed. Raises InvalidParams."""
        known = {name: getattr(spec, name) for name in KeySpec.__slots__}
        return _checked(KeySpec(**known | dict(self.values)))


def read_key_fields(fields: Mapping[str, Any], now: datetime) -> Fields:
    """Read what a caller wants a key to be. Raises InvalidParams."""
    if "expires_at" in fields and "expires_in" in fields:
        raise InvalidParams("Send 'expires_at' or 'expires_in', not both.", "expires_in")
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "expires_in":
            values["expires_at"] = None if value is None else now + timedelta(seconds=_seconds(value, name))
        elif name == "expires_at":
            values["expires_at"] = None if value is None else _time(value, now)
        elif (reader := _READERS.get(name)) is None:
            known = ", ".join((*_READERS, "expires_at", "expires_in"))
            raise InvalidParams(f"There is no field {name[:64]!r}; keys take {known}.", name[:64])
        else:
            values[name] = reader(value, name)
    return Fields(values)


def read_overlap(value: Any) -> int:
    """For how many seconds a rotated key's old secret is taken. Raises InvalidParams."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_OVERLAP:
        raise InvalidParams(f"'overlap_seconds' must be a number from 0 to {_MAX_OVERLAP}.", "overlap_seconds")
    return value


def _checked(spec: KeySpec) -> KeySpec:
    if spec.role != "user" and spec.grants is not None:
        raise InvalidParams(
            f"A key with the role {spec.role!r} takes no grants: who manages servers could widen them.", "grants"
        )
    return spec


def _text(most: int, *, optional: bool = False) -> Any:
    def read(value: Any, field: str) -> str | None:
        if value is None and optional:
            return None
        if not isinstance(value, str) or not 1 <= len(value.strip()) <= most or not value.isprintable():
            raise InvalidParams(f"{field!r} must be a text of 1 to {most} printable characters.", field)
        return value.strip()

    return read


def _role(value: Any, field: str) -> str:
    if value not in ROLES:
        raise InvalidParams(f"{field!r} must be one of {', '.join(ROLES)}.", field)
    return str(value)


def _grants(value: Any, _: str) -> Grants | None:
    return None if value is None else read_grants(value)


def _tags(value: Any, field: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MAX_TAGS:
        raise InvalidParams(f"{field!r} must be a list of at most {_MAX_TAGS} texts.", field)
    if not all(isinstance(tag, str) and 1 <= len(tag) <= _MAX_TAG and tag.isprintable() for tag in value):
        raise InvalidParams(f"{field!r} must hold texts of 1 to {_MAX_TAG} printable characters.", field)
    return tuple(dict.fromkeys(value))


def _seconds(value: Any, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_SECONDS:
        raise InvalidParams(f"{field!r} must be a number of seconds from 1 to {_MAX_SECONDS}.", field)
    return value


def _time(value: Any, now: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is None or not now < found <= now + timedelta(seconds=_MAX_SECONDS):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InvalidParams(
            "'expires_at' must be a time to come, with its zone, of the next ten years: 2027-01-31T00:00:00Z.",
            "expires_at",
        ) from None
    return found.astimezone(UTC)


_READERS: Mapping[str, Any] = {
    "name": _text(_MAX_NAME),
    "role": _role,
    "grants": _grants,
    "limits": read_limits,
    "owner": _text(_MAX_OWNER, optional=True),
    "tags": _tags,
}
