"""The store of jobs that several services share, in PostgreSQL."""
