"""Live audio by the envelope of the yap WebSocket server, at `/api/asr-streaming`."""
