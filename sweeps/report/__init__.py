"""The report on the results of all studies."""
