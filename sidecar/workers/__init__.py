"""Processes that engines live in: who has one, what is asked of it, how it comes and goes."""
