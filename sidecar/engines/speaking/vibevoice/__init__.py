"""VibeVoice: speech out of a language model, a frame of sound at a time."""
