"""The words that everybody speaks: what an engine is, options, transcripts and their edits."""
