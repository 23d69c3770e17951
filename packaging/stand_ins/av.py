"""Stand-in for PyAV: faster_whisper imports it for files, which nothing here asks it to read.

What else imports it, for Opus packets of live audio, finds none of its modules, and says so.
"""
