"""Live sessions of clients, which outlive a connection and a worker process."""
