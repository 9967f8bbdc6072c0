"""What a caller sees at an address, now: a toolset may have been made, or granted, a moment ago at another worker."""

from __future__ import annotations

from gateway.errors import UnknownToolset
from gateway.methods.services import Gateway
from gateway.model.principals import Principal
from gateway.model.view import View


async def view_of(gateway: Gateway, principal: Principal, toolset: str | None) -> View:
    """The view of a caller, at a toolset's address or (None) a general one. Raises UnknownToolset, ToolsetDisabled."""
    catalogue = gateway.sync.catalogue
    try:
        return catalogue.view(principal.grants, toolset)
    except UnknownToolset:
        await gateway.sync.catch_up_for_caller(catalogue)
    now = gateway.authenticator.current(principal) or principal
    newest = gateway.sync.catalogue
    try:
        return newest.view(now.grants, toolset)
    except UnknownToolset as error:
        error.suggest(newest.view(now.grants).near("toolset", error.name))
        raise
