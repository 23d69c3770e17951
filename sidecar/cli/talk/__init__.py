"""A spoken conversation on a terminal: with a service, by its own wire."""
