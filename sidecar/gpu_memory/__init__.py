"""GPU memory: what fits on a device and where it goes."""
