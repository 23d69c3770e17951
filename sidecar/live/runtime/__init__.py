"""Live recognition inside an engine's process."""
