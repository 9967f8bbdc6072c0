"""THE method table: which JSON-RPC method is served at which kind of address."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.methods import all_servers, api_documents, audit, imports, keys, one_server, servers, tool_lock, toolsets
from gateway.methods.call import Handler, Table, table_of


def _both_spellings(handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    return {**handlers, **{name.replace(".", "/"): each for name, each in handlers.items()}}


_SERVERS, _KEYS = (
    _both_spellings(servers.METHODS | tool_lock.METHODS | imports.METHODS | api_documents.METHODS),
    _both_spellings(keys.METHODS),
)
_TOOLSETS = _both_spellings(toolsets.METHODS)
_AUDIT = _both_spellings(audit.METHODS)

METHODS: Mapping[str, Table] = {
    "aggregate": table_of(all_servers.METHODS),
    "server": table_of(one_server.METHODS),
    "rpc": table_of(all_servers.OUTSIDE_MCP | _SERVERS | _TOOLSETS | _KEYS | _AUDIT),
    "toolset": table_of(all_servers.OUTSIDE_MCP),
    "servers": table_of(_SERVERS),
    "toolsets": table_of(_TOOLSETS),
    "keys": table_of(_KEYS),
    "tools/call": table_of({"tools/call": all_servers.tools_call}),
    "resources/read": table_of({"resources/read": all_servers.resources_read}),
    "prompts/get": table_of({"prompts/get": all_servers.prompts_get}),
    "rest": table_of(
        all_servers.METHODS
        | servers.METHODS
        | tool_lock.METHODS
        | imports.METHODS
        | api_documents.METHODS
        | toolsets.METHODS
        | keys.METHODS
        | audit.METHODS
        | {"mcp.servers.replace": servers.replace_server, "mcp.toolsets.replace": toolsets.replace_toolset}
    ),
}
"""Every method, by the kind of address that serves it; `rest` is what the REST faces invoke."""

NAMES = frozenset(METHODS["rest"])
"""The methods by one spelling each, as figures and log lines name them."""
