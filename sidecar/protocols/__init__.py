"""Foreign protocols."""
