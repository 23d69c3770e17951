"""Who may come in, and how much of it: what a request says of itself, tokens, limits."""
