"""Live protocol of the yap server."""
