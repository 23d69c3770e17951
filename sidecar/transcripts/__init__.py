"""Transcripts: words, segments, speakers, formats and edits."""
