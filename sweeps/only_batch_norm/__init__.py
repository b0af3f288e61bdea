"""Random networks in which only gamma and beta of batch norm train."""
