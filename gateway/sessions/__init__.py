"""MCP sessions of clients: at any worker of any replica, with upstream sessions of their own.

What is shared stands in Redis (`record`) and Postgres (`ended`); what is here is a copy, or can be made again. Must
not know HTTP: streams and answers are the edge's. Start with `sessions`, then `session`.
"""
