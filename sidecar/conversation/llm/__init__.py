"""Language models of conversations."""
