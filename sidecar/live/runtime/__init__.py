"""Sound as it comes, and what is said in it."""
