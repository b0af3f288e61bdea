"""The effect of fold, recalibrate and convert on networks."""
