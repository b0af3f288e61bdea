"""Runs trials in this process, in local worker processes, or on a Dask cluster."""
