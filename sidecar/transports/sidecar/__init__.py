"""What the desktop host speaks: `/transcribe`, `/health` and the rest of its addresses."""
