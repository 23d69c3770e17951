"""Service behind every protocol."""
