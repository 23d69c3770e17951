"""Load on a service, and what came of it: sessions and recordings in numbers, by every wire."""
