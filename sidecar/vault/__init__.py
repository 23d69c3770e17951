"""What is kept is sealed, under a key that does not lie beside it."""
