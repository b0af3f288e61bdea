"""Builds a trial's network, trains it with evaluation, and records measurements."""
