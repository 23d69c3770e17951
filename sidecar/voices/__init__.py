"""Who speaks when, for every engine: sound in, turns out, nothing of words."""
