"""Floor 3: live links to registered servers."""
