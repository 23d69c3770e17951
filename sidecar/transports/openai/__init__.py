"""OpenAI's transcription API."""
