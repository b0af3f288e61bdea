"""Dropout and L2, with and without batch norm."""
