"""The command line, `mcp-gateway`: what starts a gateway, and what asks one that runs.

The commands that ask (`server_commands`, `item_commands`, `check`) know the REST addresses only, over `client`;
nothing of the gateway's inside. Start with `main`.
"""
