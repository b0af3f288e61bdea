"""How high a learning rate batch norm allows."""
