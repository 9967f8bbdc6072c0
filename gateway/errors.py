"""What can go wrong, as conditions with facts.

Each class knows its JSON-RPC code, its HTTP status on the REST faces and one clear sentence. Which of the
three is shown, and in which shape, is the border's business (`methods.py` for JSON-RPC, `replies.py` for REST).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

_SHOWN = 256  # characters of a name that is repeated in an error


class GatewayError(Exception):
    """A condition that the caller can be told about.

    `detail` says what is wrong and what to do; `facts` are the members that a problem document or a JSON-RPC
    error's `data` carries beside it.
    """

    code: ClassVar[int] = -32603
    status: int = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.id: str | int | None = None
        """The id of the request that it refuses, where that could be read."""
        self.logged = False
        """Whether the call that it ended has its line in the log already."""
        self.facts: Mapping[str, Any] = {name: value for name, value in facts.items() if value is not None}

    @property
    def rpc_detail(self) -> str:
        """`detail` in the words of JSON-RPC, where it names something to do."""
        return self.detail

    @property
    def headers(self) -> Mapping[str, str]:
        """HTTP headers that belong to this answer."""
        return {}

    @property
    def data(self) -> Any:
        """The `data` member of the JSON-RPC error, or None."""
        return dict(self.facts) or None


# --- the message itself ---------------------------------------------------------------------------------------


class ParseError(GatewayError):
    """The body is not JSON that we can take."""

    code = -32700
    status = 400
    title = "Malformed JSON"


class InvalidRequest(GatewayError):
    """The body is JSON, but no JSON-RPC message; `id` is the message's own where it could be read."""

    code = -32600
    status = 400
    title = "Invalid request"

    def __init__(self, detail: str, id: str | int | None = None) -> None:
        super().__init__(detail)
        self.id = id


class HeaderMismatch(GatewayError):
    """A header of MCP contradicts the message, stands twice, or is missing (MCP 2026-07-28, versioning)."""

    code = -32020
    status = 400
    title = "Header mismatch"


class UnsupportedVersion(GatewayError):
    """A revision of MCP that this gateway does not speak (MCP 2025-11-25, lifecycle, error handling)."""

    code = -32022
    status = 400
    title = "Unsupported protocol version"

    def __init__(self, requested: str, supported: Sequence[str]) -> None:
        shown = requested[:40]
        super().__init__(f"Unsupported protocol version {shown!r}.", supported=list(supported), requested=shown)


class MethodNotFound(GatewayError):
    """There is no such JSON-RPC method at this address."""

    code = -32601
    status = 404
    title = "Unknown method"

    def __init__(self, method: str) -> None:
        super().__init__(f"There is no method {method[:_SHOWN]!r} at this address.")


class InvalidParams(GatewayError):
    """A parameter is missing, of the wrong type or out of range; `field` names it."""

    code = -32602
    status = 422
    title = "Invalid parameters"

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail, field=field)


class BadQuery(InvalidParams):
    """A parameter in the URL that the address does not take."""

    status = 400
    title = "Bad query"


# --- names ----------------------------------------------------------------------------------------------------


class UnknownName(GatewayError):
    """A name that leads nowhere, for this caller."""

    code = -32602
    status = 404
    kind: ClassVar[str] = "name"
    listing: ClassVar[str] = ""
    """What lists the names there are: a sentence that begins with the REST address, or with `method` in JSON-RPC."""
    method: ClassVar[str] = ""

    def __init__(self, name: str) -> None:
        self.name = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
        super().__init__(f"There is no {self.kind} {self.name!r}.", **{self.kind: self.name})
        self._detail_alone = self.detail
        self.suggest(())

    def suggest(self, near: Sequence[str], base: str = "/mcp") -> None:
        """Name what was probably meant, which the caller may see; the lists of things stand below `base`."""
        meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        self.detail = f"{self._detail_alone}{meant} GET {base}/{self.kind}s {self.listing}"
        self._rpc_detail = f"{self._detail_alone}{meant} {self.method} {self.listing}"
        if near:
            self.facts = {**self.facts, "did_you_mean": list(near)}

    @property
    def rpc_detail(self) -> str:
        return self._rpc_detail


class UnknownTool(UnknownName):
    """No enabled server that the caller may see offers this tool."""

    title = "Unknown tool"
    kind = "tool"
    listing = "lists the tools you can call."
    method = "tools/list"


class UnknownPrompt(UnknownName):
    """No enabled server that the caller may see offers this prompt."""

    title = "Unknown prompt"
    kind = "prompt"
    listing = "lists the prompts you can get."
    method = "prompts/list"


class UnknownServer(UnknownName):
    """No server of this name is registered."""

    title = "Unknown server"
    kind = "server"
    listing = "lists the registered servers."
    method = "mcp.servers.list at /rpc (GET /mcp/servers)"


class UnknownToolset(UnknownName):
    """There is no toolset with this slug that the caller may see."""

    title = "Unknown toolset"
    kind = "toolset"
    listing = "lists the toolsets."
    method = "mcp.toolsets.list at /rpc (GET /mcp/toolsets)"


class UnknownResource(UnknownName):
    """No enabled server offers this URI (MCP 2025-11-25, resources: -32002 with `data.uri`)."""

    code = -32002
    title = "Unknown resource"
    kind = "resource"
    listing = "lists the resources you can read."
    method = "resources/list"

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.facts = {"uri": self.facts[self.kind]}


class AmbiguousName(GatewayError):
    """A bare name that several servers offer."""

    code = -32602
    status = 409
    title = "Ambiguous name"

    def __init__(self, name: str, candidates: Sequence[str]) -> None:
        listed = ", ".join(candidates)
        super().__init__(f"Several servers offer {name!r}; use one of: {listed}.", candidates=list(candidates))


class Conflict(GatewayError):
    """What is stored stands against it."""

    code = -32056
    status = 409
    title = "Conflict"


class ServerExists(Conflict):
    """The name is taken by a server with another specification."""

    title = "Server already registered"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"A different server is registered as {name!r}. PUT /mcp/servers/{name} replaces it, "
            "PATCH changes single fields.",
            server=name,
        )


class ToolsetExists(Conflict):
    """The slug is taken by a toolset with another specification."""

    title = "Toolset already there"

    def __init__(self, slug: str) -> None:
        super().__init__(
            f"A different toolset is there as {slug!r}. PUT /mcp/toolsets/{slug} replaces it, PATCH changes fields.",
            toolset=slug,
        )


class BareNamesClash(InvalidParams):
    """Two members of a toolset would have one name without their prefixes."""

    title = "Names clash"

    def __init__(self, clashes: Sequence[tuple[str, str, str, str]]) -> None:
        kind, local, one, other = clashes[0]
        more = f", and {len(clashes) - 1} more such pairs" if len(clashes) > 1 else ""
        super().__init__(
            f"Without prefixes two {kind} would be {local!r}: that of {one!r} and that of {other!r}{more}. "
            'Exclude one of them, or keep the prefixes ("names": "prefixed").',
            "names",
        )
        self.facts = {
            **self.facts,
            "clashes": [f"{one}/{local} and {other}/{local}" for _, local, one, other in clashes[:20]],
        }


class KeyNameTaken(Conflict):
    """Another live key has the name."""

    title = "Key name taken"

    def __init__(self, name: str, id: str) -> None:
        super().__init__(
            f"There is a key named {name!r} already, with the id {id!r}: revoke it first, or take another name.", key=id
        )


class KeyIsRevoked(Conflict):
    """A revoked key can't be changed, and does not come back."""

    title = "Key revoked"

    def __init__(self, id: str) -> None:
        super().__init__(f"Key {id!r} was revoked, which is for good: create another one.", key=id)


class UnknownKey(GatewayError):
    """There is no key with this id."""

    code = -32602
    status = 404
    title = "Unknown key"

    def __init__(self, id: str) -> None:
        super().__init__(f"There is no key with the id {id[:64]!r}. GET /keys lists them.", key=id[:64])


class ServerDisabled(GatewayError):
    """The server is registered, but switched off."""

    code = -32602
    status = 409
    title = "Server disabled"

    def __init__(self, name: str) -> None:
        super().__init__(f'Server {name!r} is disabled; PATCH it with {{"enabled": true}}.', server=name)


class ToolsetDisabled(GatewayError):
    """The toolset is there, but switched off."""

    code = -32602
    status = 409
    title = "Toolset disabled"

    def __init__(self, slug: str) -> None:
        super().__init__(f'Toolset {slug!r} is disabled; PATCH it with {{"enabled": true}}.', toolset=slug)


class HeldBack(GatewayError):
    """It is kept from being used until an administrator acts."""

    code = -32060
    status = 409
    title = "Held back"


class ServerSealed(HeldBack):
    """The server's secrets were stored with a GATEWAY_SECRET that this gateway does not have."""

    title = "Server sealed"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The headers of server {name!r} were stored with another GATEWAY_SECRET: add that secret to "
            "GATEWAY_SECRET, or DELETE the server and register it again.",
            server=name,
        )


class ToolChanged(HeldBack):
    """The server changed the tool since it was approved, and its lock is enforced."""

    title = "Tool changed"

    def __init__(self, tool: str, server: str) -> None:
        super().__init__(
            f"Server {server!r} changed the tool {tool[:_SHOWN]!r} since it was approved: it is not called until an "
            f"operator has seen the change (GET /mcp/servers/{server}/changes) and approves it.",
            server=server,
            tool=tool[:_SHOWN],
        )


class NotAsked(Conflict):
    """What a server offers is not known: it was not asked yet, or it is being asked."""

    title = "Not asked yet"

    def __init__(self, server: str) -> None:
        super().__init__(
            f"What server {server!r} offers is not known yet, or is just being asked: try again once it is ready.",
            server=server,
        )


class ChangedSince(Conflict):
    """What is to be approved is not what is offered any more."""

    title = "Changed since"

    def __init__(self, server: str) -> None:
        super().__init__(
            f"Server {server!r} changed what it offers since: see GET /mcp/servers/{server}/changes again, and approve "
            "with the digest that stands there.",
            server=server,
        )


# --- the door -------------------------------------------------------------------------------------------------


class Unauthorized(GatewayError):
    """No credential, or one we do not know."""

    code = -32040
    status = 401
    title = "Unauthorized"

    def __init__(
        self, detail: str = "Send the gateway's key as 'Authorization: Bearer <key>'.", *, wrong: bool = False
    ) -> None:
        """`wrong` tells that there was a key, and that it is not ours (RFC 6750, 3.1)."""
        super().__init__(detail)
        self._wrong = wrong

    @property
    def headers(self) -> Mapping[str, str]:
        error = f', error="invalid_token", error_description="{self.detail}"' if self._wrong else ""
        return {"www-authenticate": f'Bearer realm="mcp-gateway"{error}'}


class KeyInQuery(GatewayError):
    """A credential in the URL, where every log on the way keeps it."""

    code = -32045
    status = 400
    title = "Key in the query string"

    def __init__(self, parameter: str) -> None:
        super().__init__(
            f"The query parameter {parameter!r} looks like a key. URLs are logged on the way: "
            "send the key as 'Authorization: Bearer <key>' and replace the one you sent."
        )


class Forbidden(GatewayError):
    """The door is shut for this Origin, Host or principal."""

    code = -32041
    status = 403
    title = "Forbidden"


class RoleNeeded(Forbidden):
    """The principal's role does not let it do this; `role` names the one that does."""

    def __init__(self, role: str, what: str) -> None:
        super().__init__(f"Your key may not {what}: that needs the role {role!r}.", role=role)


class LoopDetected(GatewayError):
    """The request went through this gateway before: a server is registered that leads back here."""

    code = -32058
    status = 508
    title = "Loop detected"

    def __init__(self) -> None:
        super().__init__("This request came through this gateway already: one of its servers leads back to it.")


class TooManyRequests(GatewayError):
    """The principal has too much under way."""

    code = -32059
    status = 429
    title = "Too many requests"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retry_after=1)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": "1"}


class LimitExceeded(TooManyRequests):
    """A limit of calls is reached, of a key or of a server; `limit` names it.

    Source of the headers: draft-ietf-httpapi-ratelimit-headers-10.
    """

    title = "Limit exceeded"

    def __init__(self, subject: str, limit: str, limits: Mapping[str, Any], seconds: float) -> None:
        """`subject` is `key:<id>` or `server:<name>`; `seconds` are those until it is worth another try."""
        kind, _, name = subject.partition(":")
        whose = "Your key" if kind == "key" else f"Server {name!r}"
        self._limit, self._most = limit, limits[limit]
        self._seconds = max(1, math.ceil(seconds))
        what = {
            "calls_per_second": f"take {self._most:g} calls a second",
            "calls_per_day": f"take {self._most} calls a day (UTC)",
            "concurrent": f"have {self._most} calls under way at once",
        }[limit]
        super().__init__(f"{whose} may {what}, and that is reached; try again in {self._seconds} s.")
        self.facts = {"limit": limit, "retry_after": self._seconds}

    @property
    def headers(self) -> Mapping[str, str]:
        window = {"calls_per_second": ";w=1", "calls_per_day": ";w=86400"}.get(self._limit, "")
        return {
            "retry-after": str(self._seconds),
            "ratelimit-policy": f'"{self._limit}";q={math.ceil(self._most)}{window}',
            "ratelimit": f'"{self._limit}";r=0;t={self._seconds}',
        }


class SessionNotFound(GatewayError):
    """The session id is missing its signature, its owner or its life: all look alike."""

    code = -32001
    status = 404
    title = "Session not found"

    def __init__(self) -> None:
        super().__init__("This session does not exist or has ended. Send 'initialize' to start a new one.")


class EventUnknown(GatewayError):
    """A stream can't be resumed after this event: it is not ours, or what came after it is not kept any more."""

    code = -32043
    status = 400
    title = "Event unknown"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The stream can't be resumed at this Last-Event-ID: {reason}. Send the request again.")


class RequestCancelled(GatewayError):
    """The client cancelled the request, so it has no result; MCP clients ignore this answer."""

    code = -32044
    status = 499
    title = "Request cancelled"

    def __init__(self) -> None:
        super().__init__("The request was cancelled by its client.")


class NeedsSession(GatewayError):
    """The method means something only within a session."""

    code = -32600
    status = 400
    title = "Session needed"

    def __init__(self, method: str) -> None:
        super().__init__(f"{method} belongs to a session: send it to an MCP address, after 'initialize'.")


class GatewayDisabled(GatewayError):
    """MCP_GATEWAY_ENABLED is false."""

    code = -32601
    status = 404
    title = "MCP gateway disabled"

    def __init__(self) -> None:
        super().__init__("The MCP gateway is switched off here. Set MCP_GATEWAY_ENABLED=true and restart it.")


class NotFound(GatewayError):
    """No such address."""

    code = -32601
    status = 404
    title = "Not found"


class MethodNotAllowed(GatewayError):
    """The address exists, but not with this HTTP method."""

    code = -32600
    status = 405
    title = "Method not allowed"

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        listed = ", ".join(allowed)
        super().__init__(f"{method} is not served at this address; it takes {listed}.")
        self.allowed = listed

    @property
    def headers(self) -> Mapping[str, str]:
        return {"allow": self.allowed}


class NotAcceptable(GatewayError):
    """The client accepts neither of the two types that we can answer with."""

    code = -32600
    status = 406
    title = "Not acceptable"

    def __init__(self, accept: str) -> None:
        super().__init__(
            f"The Accept header {accept!r} allows neither application/json nor text/event-stream; "
            "this address answers with one of the two."
        )


class UnsupportedMediaType(GatewayError):
    """The body is not declared as JSON."""

    code = -32600
    status = 415
    title = "Unsupported media type"

    def __init__(self, content_type: str) -> None:
        super().__init__(f"Send the body as 'Content-Type: application/json', not {content_type!r}.")


class TooManyFields(GatewayError):
    """The request has more header lines than GATEWAY_MAX_FIELDS."""

    code = -32600
    status = 431
    title = "Too many headers"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request has more than {limit} header lines (GATEWAY_MAX_FIELDS).", limit=limit)


class HelloTooLarge(GatewayError):
    """What a client says of itself exceeds GATEWAY_MAX_HELLO."""

    code = -32600
    status = 413
    title = "Introduction too large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"capabilities and clientInfo have more than {limit} bytes (GATEWAY_MAX_HELLO).")


class TooManySubscriptions(GatewayError):
    """A session has as many subscriptions as GATEWAY_MAX_SUBSCRIPTIONS lets it, or a URI is too long for one."""

    code = -32600
    status = 413
    title = "Too many subscriptions"


class BodyTooLarge(GatewayError):
    """The request's body exceeds GATEWAY_MAX_BODY."""

    code = -32600
    status = 413
    title = "Body too large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is larger than {limit} bytes (GATEWAY_MAX_BODY).", limit=limit)


class BodyTimeout(GatewayError):
    """The request's body did not arrive in time."""

    code = -32600
    status = 408
    title = "Body too slow"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The body was not complete after {seconds:g} s.")


class AddressRefused(GatewayError):
    """A server must not have this address."""

    code = -32057
    status = 422
    title = "Address refused"

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"The host {host[:100]!r} is refused: {reason}.", field="url")


# --- upstreams ------------------------------------------------------------------------------------------------


class UpstreamError(GatewayError):
    """Something between us and a registered server; `server` names it."""

    status = 502

    def __init__(self, server: str, detail: str, **facts: Any) -> None:
        super().__init__(detail, server=server, **facts)
        self.server = server

    @property
    def facts_beside_server(self) -> Mapping[str, Any]:
        """The facts that another error about the same server can take over."""
        return {name: value for name, value in self.facts.items() if name != "server"}


class UpstreamUnreachable(UpstreamError):
    """No connection: the request was never sent, and may be sent again."""

    code = -32050
    title = "Server unreachable"


class UpstreamSuspended(UpstreamUnreachable):
    """The server failed several times in a row, so it is left alone for a while: the call was not sent."""

    title = "Server suspended"

    def __init__(self, server: str, failures: int, reason: str, seconds: float) -> None:
        self.seconds = max(1, math.ceil(seconds))
        super().__init__(
            server,
            f"Server {server!r} failed {failures} times in a row, so it is not tried for {self.seconds} s. "
            f"The last time: {reason}",
            retry_after=self.seconds,
        )

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": str(self.seconds)}


class ServerBusy(UpstreamError):
    """The server has its share of calls under way, so that it can't take the worker's: the call was not sent."""

    code = -32059
    status = 429
    title = "Server busy"

    def __init__(self, server: str, limit: int, of: str = "") -> None:
        """`of` is whose share it is: `session`, `key` or `master key`; empty for all of the server's."""
        has = f"Your {of} has {limit} calls at server {server!r}" if of else f"Server {server!r} has {limit} calls"
        share = "its part of " if of else ""
        super().__init__(
            server, f"{has} under way at this worker ({share}GATEWAY_MAX_SERVER_CALLS); try again.", retry_after=1
        )

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": "1"}


class UpstreamTimeout(UpstreamError):
    """Sent, and no answer within the deadline."""

    code = -32051
    status = 504
    title = "Server timed out"


class UpstreamProtocolError(UpstreamError):
    """An answer that is not MCP."""

    code = -32052
    title = "Server answered with something that is not MCP"


class OutcomeUnknown(UpstreamError):
    """Sent, and the connection was lost: it may or may not have been carried out."""

    code = -32053
    title = "Outcome unknown"


class UpstreamRefused(UpstreamError):
    """The server answered 401 or 403 to the credentials it is registered with."""

    code = -32055
    title = "Server refused the gateway's credentials"


class UpstreamFailure(GatewayError):
    """The server's own JSON-RPC error, passed on as it is."""

    status = 502
    title = "The server answered with an error"

    def __init__(self, server: str, code: int, message: str, error_data: Any = None) -> None:
        super().__init__(message, server=server, upstream_code=code, upstream_data=error_data)
        self.upstream_code = code
        self.error_data = error_data
        self.status = {-32602: 422, -32601: 404, -32002: 404}.get(code, 502)

    @property
    def data(self) -> Any:
        return self.error_data


# --- ourselves ------------------------------------------------------------------------------------------------


class StoreUnavailable(GatewayError):
    """Postgres does not answer: reads and calls go on from memory, writes wait."""

    code = -32054
    status = 503
    title = "Registry unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The registry's database does not answer, so nothing can be changed now. Calls go on; try again.",
            retry_after=5,
        )

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": "5"}


class NotReady(GatewayError):
    """The worker is still opening, or on its way out, or needs a store that does not answer."""

    code = -32061
    status = 503
    title = "Not ready"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": "1"}


class ClientLeft(Exception):
    """The client hung up, or does not read: no answer can be sent. Not an error."""


class SettingsError(Exception):
    """A setting has a value that we can't start with; the text is one line that names it."""
