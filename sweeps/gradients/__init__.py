"""Gradients from layer to layer."""
