"""How Sphinx builds these pages: `make docs`. They are readable as they are, too."""

from gateway.version import VERSION

project = "mcp-micro-gateway"
release = version = VERSION
extensions: list[str] = []
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "description": "an MCP gateway"}
exclude_patterns = ["build"]
nitpicky = True
