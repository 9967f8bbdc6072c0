"""What stands beside the gateway so that it can be tried and judged: a stub MCP server, and the validation's cases.

Must know nothing of the gateway but its addresses. Start with `stub`.
"""
