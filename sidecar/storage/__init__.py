"""Storage: recordings, encryption, SQLite, enrolled speakers."""
