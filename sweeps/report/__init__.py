"""The report on all studies."""
