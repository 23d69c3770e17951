"""Spoken conversations: recognition, LLM, TTS, interruption."""
