"""OpenAPI documents as servers: each operation of an API becomes a tool.

A document is read and compiled in a process of its own (`compiler`, run by `runner`), since it comes from anybody; what
comes out are tools as MCP has them and, for each, how its request is made (`plan`). A call goes through `request` and
`answer`. Must not know the registry, connections or who calls. Start with `job`, then `compiler`.
"""
