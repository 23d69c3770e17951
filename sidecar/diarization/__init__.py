"""Who speaks when, for every engine: sound in, turns out, and words given to turns."""
