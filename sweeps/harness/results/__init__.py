"""Stored trials, the tables made from them, and what produced them."""
