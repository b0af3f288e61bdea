"""Studies of what batch norm does: ``python -m sweeps.depth`` is the main one."""
