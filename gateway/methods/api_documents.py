"""OpenAPI documents before they are registered: what they would give, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.errors import InvalidParams, UnknownServer, UpstreamError
from gateway.methods.call import Call, Handler, needs
from gateway.methods.vetting import vet
from gateway.model.principals import require_role
from gateway.model.redaction import redact_url
from gateway.model.references import check_references, references
from gateway.model.server import OPENAPI, ServerSpec
from gateway.model.server_fields import parse_spec, read_url
from gateway.model.tokens import tokens_of
from gateway.openapi.job import BadDocument, Compiled
from gateway.registry.servers import Change

_PREVIEW = "preview"
_FIELDS = ("name", "spec", "spec_url", "url", "base_url", "include", "exclude", "headers")


@needs("operator", "preview OpenAPI documents")
async def preview_document(call: Call, /, **fields: Any) -> Mapping[str, Any]:
    """Show the tools that a document would give, and what would be left out; nothing is stored.

    With the `name` of a registered API alone, of its document as it is now.
    """
    fields.pop("_meta", None)
    for each in fields:
        if each not in _FIELDS:
            raise InvalidParams(f"There is no field {each[:64]!r}; send {', '.join(_FIELDS)}.", each[:64])
    if fields.get("spec") is None and fields.get("spec_url") is None:
        spec = await _registered(call, fields)
    else:
        spec = parse_spec({"name": _PREVIEW, **fields})
        await vet(call, spec.url, spec.spec_url)
        if any(references(spec)):
            require_role(call.principal, "admin", "refer to the gateway's secrets")
            check_references(spec, str(call.gateway.settings.secrets_dir))
    compiled = await _compiled(call, spec)
    await vet(call, read_url(compiled.base_url, "base_url"))
    return _shown(compiled)


async def _registered(call: Call, fields: Mapping[str, Any]) -> ServerSpec:
    """The specification of a registered API, of which a preview may choose other operations."""
    name = fields.get("name")
    if not isinstance(name, str):
        raise InvalidParams("Send 'spec' or 'spec_url', or the 'name' of a registered API.", "spec")
    for each in fields:
        if each != "name":
            raise InvalidParams(f"{each!r} goes with 'spec' or 'spec_url'; a registered API has its own.", each)
    server = await call.find(lambda view: view.server(name))
    if server.spec.transport_type != OPENAPI or server.spec.sealed_away:
        raise UnknownServer(name) if server.spec.sealed_away else InvalidParams(f"Server {name!r} is no API.", "name")
    return server.spec


def is_of_api(call: Call, name: str, sent: Mapping[str, Any]) -> bool:
    """Whether a change may be one of an API's document."""
    known = call.gateway.sync.catalogue.servers.get(name)
    kinds = sent.get("transport_type"), None if known is None else known.spec.transport_type
    return OPENAPI in kinds


async def with_base_url(call: Call, name: str, change: Change) -> Change:
    """The same change, whose document was read where it is another one, with the base URL that it says if none is sent.

    A document that can't be fetched now is taken where the base URL is known: the server is unreachable until it can.
    Raises InvalidParams for a document that can't be taken.
    """
    stored = await _stored(call, name)
    spec = change(stored)
    if spec.transport_type != OPENAPI or (stored is not None and _described(stored) == _described(spec)):
        return change
    try:
        compiled = await _compiled(call, spec)
    except UpstreamError:
        if not spec.url:
            raise
        return change
    base_url = read_url(compiled.base_url, "base_url")
    await vet(call, base_url)

    def completed(stored: ServerSpec | None) -> ServerSpec:
        spec = change(stored)
        return spec if spec.url else replace(spec, url=base_url)

    return completed


async def _stored(call: Call, name: str) -> ServerSpec | None:
    await call.gateway.sync.catch_up()
    known = call.gateway.sync.catalogue.servers.get(name)
    return None if known is None else known.spec


def _described(spec: ServerSpec) -> tuple[object, ...]:
    """What decides which tools an API has."""
    return spec.transport_type, spec.url, spec.spec, spec.spec_url, spec.include, spec.exclude


async def _compiled(call: Call, spec: ServerSpec) -> Compiled:
    try:
        return await call.gateway.documents.compiled(spec)
    except BadDocument as error:
        raise InvalidParams(str(error), "spec" if spec.spec is not None else "spec_url") from None


def _shown(compiled: Compiled) -> dict[str, Any]:
    """A compiled document as JSON: its tools, each with its operation and its tokens, and all that is none."""
    tools = [
        {**tool, "operation": f"{plan['method']} {plan['path']}", "tokens": tokens_of(tool)}
        for tool in compiled.tools
        if (plan := compiled.plans[tool["name"]])
    ]
    return {
        "title": compiled.title,
        "version": compiled.version,
        "openapi": compiled.format,
        "base_url": redact_url(compiled.base_url),
        "security": compiled.security,
        "warnings": compiled.warnings,
        "tools": tools,
        "left_out": [*compiled.left_out, *compiled.excluded],
        "tokens": sum(tool["tokens"] for tool in tools),
    }


METHODS: dict[str, Handler] = {"mcp.openapi.preview": preview_document}
