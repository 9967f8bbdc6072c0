"""JSON-RPC and MCP as values: messages, revisions, the handshake, ids, server-sent events, where a message belongs.

Pure: values in, values out; no await, no HTTP, nothing of this gateway's own. Each file names the clause that it
implements. Start with `messages`, then `versions` and `exchange`.
"""
