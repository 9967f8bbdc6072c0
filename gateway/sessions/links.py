"""The links to servers as sessions ask for them: by name, and only while the server is the one they know."""

from __future__ import annotations

from gateway.errors import GatewayError
from gateway.model.grants import Grants
from gateway.model.parts import Part
from gateway.model.view import local_uri
from gateway.registry.sync import Sync
from gateway.sessions.record import UpstreamRecord
from gateway.upstream.contract import Upstream
from gateway.upstream.link import ServerLink
from gateway.upstream.pool import Pool


class Links:
    """This worker's links, by what the catalogue says now."""

    def __init__(self, pool: Pool, sync: Sync) -> None:
        self._pool = pool
        self._sync = sync

    def to(self, server: str) -> ServerLink | None:
        """The link to a server that is registered and enabled."""
        found = self._sync.catalogue.servers.get(server)
        return self._pool[found] if found is not None and found.spec.enabled and not found.spec.sealed_away else None

    def of(self, server: str, upstream: UpstreamRecord) -> ServerLink | None:
        """The link that an upstream session belongs to, if the server is still registered as it was."""
        link = self.to(server)
        return link if link is not None and link.spec.fingerprint == upstream.fingerprint else None

    def upstream_for(self, server: str) -> Upstream | None:
        """The upstream of a server that another worker's errand names."""
        link = self.to(server)
        return None if link is None else link.upstream

    def is_seen(self, server: str, grants: Grants | None, toolset: str | None) -> bool:
        """Whether a server may be seen at all, at a toolset's address or (None) a general one."""
        return self._part(server, grants, toolset) is not None

    def is_whole(self, server: str, grants: Grants | None, toolset: str | None) -> bool:
        """Whether all of a server may be seen."""
        part = self._part(server, grants, toolset)
        return part is not None and part.is_whole

    def sees_uri(self, server: str, uri: str, grants: Grants | None, toolset: str | None) -> bool:
        """Whether a server's resource may be seen."""
        part = self._part(server, grants, toolset)
        return part is not None and local_uri(part, uri) is not None

    def _part(self, server: str, grants: Grants | None, toolset: str | None) -> Part | None:
        try:
            return self._sync.catalogue.view(grants, toolset).parts.get(server)
        except GatewayError:  # the toolset is gone, or may not be seen any more
            return None

    def public_uri(self, server: str, uri: str) -> str:
        """The URI by which the aggregate knows a server's resource."""
        return self._sync.catalogue.public_uri(server, uri)
