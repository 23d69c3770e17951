"""Speech-to-speech protocol of the VibeVoice demo."""
