"""Live audio, from a client's side: sessions that outlive a connection and an engine's process."""
