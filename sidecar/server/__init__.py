"""Server process: ports, TLS, ready line, shutdown."""
