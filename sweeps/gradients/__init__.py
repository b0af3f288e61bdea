"""How gradients change from layer to layer."""
