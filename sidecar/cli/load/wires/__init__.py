"""A driver for each wire; none knows another."""
