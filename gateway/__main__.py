"""`python -m gateway` is `mcp-gateway`."""

from gateway.cli.main import main

main()
