"""Who a request comes from, and what they may see and do."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import RoleNeeded
from gateway.model.grants import Grants
from gateway.model.limits import Limits

MASTER = "master"
"""The id of the principal with the master key."""
ROLES = ("admin", "operator", "user")
"""What a role may do is what those after it may, and more."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody we know, by a key.

    `id` is what sessions, streams and records are bound to: the key's id, or `master`; it is the same after the secret
    was replaced. `role` is `admin` (everything), `operator` (servers, no keys) or `user` (what `grants` give).
    """

    id: str
    name: str
    role: str = "user"
    grants: Grants | None = None
    """What it sees and calls; None for all."""
    limits: Limits | None = None
    """How much it may call; None for no limit."""
    ends: float | None = None
    """When its key expires, in seconds since the epoch; infinite for never, None for the master key."""

    @property
    def key(self) -> str | None:
        """The id of its key; None for the master key."""
        return None if self.ends is None else self.id


def has_role(principal: Principal, role: str) -> bool:
    """Tell whether a principal has a role, or one above it."""
    return ROLES.index(principal.role) <= ROLES.index(role)


def require_role(principal: Principal, role: str, what: str) -> None:
    """Let those pass who have a role or one above it. Raises RoleNeeded."""
    if not has_role(principal, role):
        raise RoleNeeded(role, what)
