"""Native HTTP and WebSocket API."""
