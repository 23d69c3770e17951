"""What operators look at and administrators change (docs/operations.md)."""
