"""The rank of deep random networks."""
