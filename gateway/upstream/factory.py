"""How a registered server is reached: its transport, named or found out, over HTTP or through the programs' process."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

from gateway.model.redaction import redact_url
from gateway.model.references import references
from gateway.model.server import NO_OFFERS, OPENAPI, STDIO, Offers, ServerSpec
from gateway.net.dialer import Dialer
from gateway.upstream.contract import Upstream
from gateway.upstream.detect import DetectingUpstream, Guess
from gateway.upstream.http_sse import HttpSseUpstream
from gateway.upstream.openapi import OpenApiUpstream
from gateway.upstream.referenced import ReferencedUpstream, Resolve
from gateway.upstream.relayed import Relay, RelayedUpstream
from gateway.upstream.rest import RestUpstream
from gateway.upstream.stdio import NoBridge, StdioUpstream
from gateway.upstream.streamable_http import StreamableHttpUpstream
from gateway.upstream.wire import WireLimits

Connect = Callable[[ServerSpec], Upstream]

_PROGRAM_SECONDS = 35.0  # for a program to start and shake hands: some are installed at that moment
_MAX_STREAMS = 1000  # of one server, that stay open, at one worker


def over_http(
    dialer: Dialer,
    limits: WireLimits,
    relay: Relay,
    bridge: str | None = None,
    resolve: Resolve = lambda spec: spec,
    offers: Callable[[str], Offers] = lambda server: NO_OFFERS,
) -> Connect:
    """Connect to servers by HTTP, in whichever of its transports is named, or is found to be theirs.

    `bridge` is the socket of the process that runs stdio servers; `resolve` puts the secrets in that servers refer to;
    `offers` gives what is known of a server by its name, for those that are APIs.
    """

    def connect(spec: ServerSpec) -> Upstream:
        if spec.transport_type == STDIO:
            if bridge is None or relay.bridge is None:
                return NoBridge(spec.name)
            program = {
                "name": spec.name,
                "command": spec.command,
                "args": spec.args,
                "env": spec.env,
                "cwd": spec.cwd,
            }
            over_socket = dialer.local(bridge, _MAX_STREAMS)
            limits_of_programs = WireLimits(_PROGRAM_SECONDS, limits.max_result)
            key = f"{spec.name}-{spec.fingerprint}"
            stdio = StdioUpstream(spec.name, key, program, over_socket, limits_of_programs, relay.bridge)
            return RelayedUpstream(spec.name, stdio, relay)
        client = dialer.client(spec.headers)
        if spec.transport_type == OPENAPI:
            return OpenApiUpstream(spec.name, spec.url, client, limits, offers)
        if spec.transport_type == "rest":
            return RestUpstream(spec.name, spec.url, client, limits)
        streams = dialer.client(spec.headers, _MAX_STREAMS)
        sse = HttpSseUpstream(spec.name, spec.url, streams, limits, relay.worker)
        if spec.transport_type == "sse":
            return RelayedUpstream(spec.name, sse, relay)
        mcp = StreamableHttpUpstream(spec.name, spec.url, client, limits, streams)
        rest = RestUpstream(spec.name, spec.url, client, limits)
        guess = None
        if urlsplit(spec.url).path in ("", "/"):
            url = urlunsplit(urlsplit(spec.url)._replace(path="/mcp"))
            guess = Guess(redact_url(url), StreamableHttpUpstream(spec.name, url, client, limits, streams))
        return DetectingUpstream(mcp, RelayedUpstream(spec.name, sse, relay), rest, guess)

    def connect_with_secrets(spec: ServerSpec) -> Upstream:
        has_references = next(references(spec), None) is not None
        return ReferencedUpstream(spec, resolve, connect) if has_references else connect(spec)

    return connect_with_secrets
