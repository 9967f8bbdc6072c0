"""Who a request comes from, and what they may see and do: the seam for keys with grants."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody we know; `digest` stands for the credential without revealing it."""

    name: str
    digest: str
    administrator: bool = False
    servers: frozenset[str] | None = frozenset()
    """The servers that it may see and call; None for all."""


def may_see(principal: Principal, server: str) -> bool:
    """Tell whether the principal may see and call this server."""
    return principal.servers is None or server in principal.servers


def require_administrator(principal: Principal) -> None:
    """Refuse a change of the registry to others. Raises Forbidden."""
    if not principal.administrator:
        raise Forbidden("Only an administrator may change the registry.")
