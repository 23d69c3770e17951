"""Who is known by voice (docs/people.md)."""
