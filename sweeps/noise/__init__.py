"""Batch norm with noise after it, and the smoothness of the loss."""
