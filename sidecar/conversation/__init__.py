"""A spoken conversation: hear, think, say, and fall silent when interrupted."""
