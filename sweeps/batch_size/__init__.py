"""How small a batch may be, with each kind of normalization."""
