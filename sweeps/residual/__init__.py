"""Residual networks with batch norm, with SkipInit and with neither."""
