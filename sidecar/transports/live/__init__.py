"""Our own wire of live audio: `/v1/live`, for our clients and the page (docs/live-wire.md)."""
