"""From a trial to its result: networks, training with evaluation, and recorders."""
