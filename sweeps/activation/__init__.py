"""Which activations need batch norm in deep networks."""
