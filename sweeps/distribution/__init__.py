"""The inputs of deep sigmoids during training."""
