"""Servers as they are reached: one contract, a file per transport, and the link that a worker has to each server.

Must not know clients, their sessions, or the registry's tables. Start with `contract`, then `link`, then a transport:
`streamable_http` first.
"""
