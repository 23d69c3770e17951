"""Live recognition inside the engine's process."""
