"""What each method does, whatever protocol asked for it: the method table, `invoke`, and the handlers.

Knows sessions, the registry and links to servers; must not know HTTP, framing or status codes. Start with `table`,
then `call`, then the handlers: `all_servers` (the aggregate), `one_server` (transparent), `servers` (the registry's).
"""
