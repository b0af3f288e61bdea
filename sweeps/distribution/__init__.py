"""How the inputs of deep sigmoids are distributed during training."""
