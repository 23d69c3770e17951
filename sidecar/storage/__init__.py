"""Storage: recordings, encryption, SQLite, PostgreSQL, enrolled speakers."""
