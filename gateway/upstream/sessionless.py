"""What upstreams have in common that keep no session and say nothing by themselves: HTTP APIs."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from gateway.protocol.messages import Failure, Notification, Reply
from gateway.upstream.contract import Heard, NoStream, UpstreamSession


class Sessionless:
    """The parts of `upstream/contract.Upstream` for which such a server has nothing."""

    async def listen(self, session: UpstreamSession, after: str | None) -> AsyncGenerator[Heard, None]:
        nothing: tuple[Heard, ...] = ()
        for heard in nothing:
            yield heard  # a generator, as the contract has it
        raise NoStream

    async def post(self, session: UpstreamSession, message: Notification | Reply | Failure) -> None:
        """It takes no messages."""

    async def end(self, session: UpstreamSession) -> None:
        """There is no session."""
