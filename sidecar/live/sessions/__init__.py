"""Live sessions that outlive a connection and an engine's process."""
