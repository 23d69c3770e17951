"""The queue, as clients of a vvv server know it."""
