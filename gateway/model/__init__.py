"""Floor 2: servers, names, the catalogue, sessions and keys as values; nothing here awaits."""
