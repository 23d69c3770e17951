"""A recording on its way: taken in, waiting in a fair order, running, kept, fetched, edited."""
