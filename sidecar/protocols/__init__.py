"""A wire each. Status codes and dialects live here and nowhere further in."""
