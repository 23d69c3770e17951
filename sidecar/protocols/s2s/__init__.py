"""A spoken conversation as the page of the speech-to-speech demo of VibeVoice has it."""
