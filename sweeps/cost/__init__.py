"""The benchmark suite: what batch norm costs."""
