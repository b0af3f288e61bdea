"""Stores the results of trials, makes tables from them, and records their provenance."""
