"""An MCP address and the sessions that belong to it."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import InvalidRequest, SessionNotFound
from gateway.methods.services import Gateway
from gateway.model.principals import Principal
from gateway.model.session_ids import Session
from gateway.protocol.placement import Inbound
from gateway.sessions.session import Conversation


@dataclass(frozen=True, slots=True)
class Address:
    """An MCP endpoint: the aggregate (`server` None) or one server's."""

    server: str | None

    @property
    def table(self) -> str:
        return "aggregate" if self.server is None else "server"

    @property
    def name(self) -> str:
        """What a session is bound to."""
        return "/mcp" if self.server is None else f"/mcp/servers/{self.server}/mcp"

    def session(self, gateway: Gateway, inbound: Inbound, principal: Principal) -> Session:
        """The session of a request. Raises InvalidRequest or SessionNotFound."""
        if inbound.session_id is None:
            raise InvalidRequest(
                "The header Mcp-Session-Id is missing: send 'initialize' first and repeat the id it answers with. "
                "POST /rpc takes single calls without a session."
            )
        session = gateway.sessions.read(inbound.session_id, principal, self.name, gateway.clock())
        if session.key in gateway.ended_sessions:
            raise SessionNotFound
        return session

    async def conversation(self, gateway: Gateway, inbound: Inbound, principal: Principal) -> Conversation:
        """What is known of the session of a request. Raises InvalidRequest or SessionNotFound."""
        return await gateway.conversations.find(self.session(gateway, inbound, principal), self.server)
