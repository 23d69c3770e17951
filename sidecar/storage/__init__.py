"""The PostgreSQL that services share: where it is, connections to it, its tables and their key."""
