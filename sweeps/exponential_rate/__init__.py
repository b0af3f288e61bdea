"""The exponential learning rate that equals weight decay."""
