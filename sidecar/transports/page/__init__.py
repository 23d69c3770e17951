"""What is at `/` for people."""
