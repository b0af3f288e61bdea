"""Dropout before batch norm."""
