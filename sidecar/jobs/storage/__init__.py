"""Where recordings of kept jobs lie: a folder, or a bucket of an object storage."""
