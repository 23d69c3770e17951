"""GPU memory: devices, footprint of models, memory plans, admission."""
