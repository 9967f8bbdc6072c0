"""THE method table: which JSON-RPC method is served at which kind of address."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.methods import all_servers, one_server, servers
from gateway.methods.call import Table, table_of

_BOTH_SPELLINGS = servers.METHODS | {name.replace(".", "/"): each for name, each in servers.METHODS.items()}

METHODS: Mapping[str, Table] = {
    "aggregate": table_of(all_servers.METHODS),
    "server": table_of(one_server.METHODS),
    "rpc": table_of(all_servers.OUTSIDE_MCP | _BOTH_SPELLINGS),
    "servers": table_of(_BOTH_SPELLINGS),
    "tools/call": table_of({"tools/call": all_servers.tools_call}),
    "resources/read": table_of({"resources/read": all_servers.resources_read}),
    "prompts/get": table_of({"prompts/get": all_servers.prompts_get}),
    "rest": table_of(all_servers.METHODS | servers.METHODS | {"mcp.servers.replace": servers.replace_server}),
}
"""Every method, by the kind of address that serves it; `rest` is what the REST faces invoke."""

NAMES = frozenset(METHODS["rest"])
"""The methods by one spelling each, as figures and log lines name them."""
