"""OpenAI's Realtime API as a conversation: what people say is answered, aloud or in text."""
