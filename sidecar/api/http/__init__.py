"""HTTP kit that all protocols share."""
