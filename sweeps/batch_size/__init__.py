"""Small mini-batches, with each kind of normalization."""
