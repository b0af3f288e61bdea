"""A badly initialized network that fits a parabola."""
