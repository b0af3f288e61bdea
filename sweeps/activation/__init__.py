"""Activations in deep networks."""
