"""What happened, counted by whoever lets it happen."""
