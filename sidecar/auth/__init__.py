"""Authentication, authorization, rate limits, tokens, certificates."""
