"""Learning rates that batch norm allows."""
