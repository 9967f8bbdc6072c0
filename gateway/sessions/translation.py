"""How a client session and its upstream sessions understand each other: ids, names and what may pass. Pure values.

A server's requests travel to the client under ids that lead back to it (`model/question_ids`); its notifications pass
where the client's revision knows them, under the names of the client's address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.errors import HelloTooLarge
from gateway.model.question_ids import Question, QuestionIds
from gateway.protocol import versions
from gateway.protocol.messages import Failure, Id, Notification, Request, dump
from gateway.sessions.record import UpstreamRecord


@dataclass(frozen=True, slots=True)
class Translation:
    """What one client session takes, as of its record; `server` is set at one server's own address."""

    key: str
    server: str | None
    version: str
    capabilities: Mapping[str, Any]
    level: str | None
    question_ids: QuestionIds
    public_uri: Callable[[str, str], str]
    """The URI by which the aggregate knows a server's resource."""

    def outward(self, server: str, upstream: UpstreamRecord, message: Notification) -> Notification | None:
        """A server's notification as the client gets it; None for nothing."""
        method, params = message.method, message.params
        if not versions.may_tell(method, self.version):
            return None
        if method == "notifications/cancelled":
            asked = params.get("requestId")
            if isinstance(asked, bool) or not isinstance(asked, str | int):
                return None
            return replace(message, params={**params, "requestId": self._question_id(server, upstream, asked)})
        if self.server is not None:
            return message
        if method in versions.LIST_CHANGES:
            return None  # the aggregate's lists are the catalogue's: they change when that does
        if method == "notifications/resources/updated" and isinstance(uri := params.get("uri"), str):
            return replace(message, params={**params, "uri": self.public_uri(server, uri)})
        if method == "notifications/message" and not _loud_enough(params.get("level"), self.level):
            return None
        return message

    def question(self, server: str, upstream: UpstreamRecord, request: Request) -> Request | Failure:
        """A server's request under the id that the client gets it by, or why it can't be asked."""
        if not versions.may_ask(request.method, request.params, self.version, self.capabilities):
            return Failure(request.id, -32601, f"The client did not declare {request.method}.")
        params = request.params
        meta = params.get("_meta")
        if isinstance(meta, Mapping) and isinstance(token := meta.get("progressToken"), str | int):
            params = {**params, "_meta": {**meta, "progressToken": self._question_id(server, upstream, token)}}
        return Request(self._question_id(server, upstream, request.id), request.method, params)

    def question_of(self, id: object) -> Question:
        """What a client's answer, or its progress token, answers. Raises UnknownQuestion."""
        return self.question_ids.read(self.key, id)

    def _question_id(self, server: str, upstream: UpstreamRecord, id: Id) -> str:
        return self.question_ids.write(self.key, Question(server, upstream.handle, id))


def introduction(params: Mapping[str, Any], limit: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a client says of itself in `initialize`: its capabilities and its name, which servers insist on.

    Raises HelloTooLarge for more than `limit` bytes of JSON: it goes into the session's record.
    """
    capabilities, client_info = params.get("capabilities"), params.get("clientInfo")
    unnamed = {"name": "unnamed", "version": "unknown"}
    said = (
        capabilities if isinstance(capabilities, Mapping) else {},
        {**unnamed, **client_info} if isinstance(client_info, Mapping) else unnamed,
    )
    if len(dump(said)) > limit:
        raise HelloTooLarge(limit)
    return said


def _loud_enough(level: object, least: str | None) -> bool:
    if least is None or level not in versions.LOG_LEVELS:
        return True
    return versions.LOG_LEVELS.index(str(level)) >= versions.LOG_LEVELS.index(least)
