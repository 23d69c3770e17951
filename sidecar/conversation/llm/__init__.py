"""Who finds the answers in a conversation: a language model somewhere, or nobody but an echo."""
