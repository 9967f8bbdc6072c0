"""Floor 1: MCP and its wire formats as values; nothing here awaits."""
