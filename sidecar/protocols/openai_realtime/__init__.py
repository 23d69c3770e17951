"""OpenAI's Realtime API: what people say, transcribed while they say it."""
