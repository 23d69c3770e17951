"""Jobs: recordings submitted, queued, run, stored."""
