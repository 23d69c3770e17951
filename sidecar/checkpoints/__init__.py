"""Model checkpoints: lookup, integrity, download."""
