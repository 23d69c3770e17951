"""Wyoming protocol of Home Assistant."""
