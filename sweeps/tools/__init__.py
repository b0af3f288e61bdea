"""What fold, recalibrate and convert do to networks."""
