"""What fits on a device, and where it goes."""
