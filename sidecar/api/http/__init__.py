"""HTTP kit of all protocols."""
