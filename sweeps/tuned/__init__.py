"""The depth study with a learning rate for each arm and depth."""
