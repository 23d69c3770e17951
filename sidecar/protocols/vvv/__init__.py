"""Queue protocol of the vvv server."""
