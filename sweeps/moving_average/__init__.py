"""The statistics that batch norm uses in inference."""
