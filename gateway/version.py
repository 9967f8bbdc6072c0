"""The version of this package, and the name it gives itself on the wire."""

NAME = "mcp-micro-gateway"
VERSION = "0.1.0"
