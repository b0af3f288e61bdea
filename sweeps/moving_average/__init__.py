"""Slow training or slow moving averages."""
