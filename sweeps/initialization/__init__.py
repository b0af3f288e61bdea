"""A badly initialized regression network."""
