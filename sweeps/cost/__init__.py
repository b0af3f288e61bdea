"""Benchmarks of batch norm's cost in time and memory."""
