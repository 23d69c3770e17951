"""A module for each kind of server."""
