"""LeNet with sigmoids at a high learning rate."""
