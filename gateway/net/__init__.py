"""Connections to the outside: addresses are vetted, and what was vetted is what is connected to.

Knows sockets and the rules of `model/address_policy`; must not know MCP or what a connection is for. Start with
`dialer`.
"""
