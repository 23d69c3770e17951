"""Diarization and speaker identification."""
